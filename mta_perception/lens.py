"""A CameraInfo message as a Lens: what its images are images of (REP 104).

`k` and `d` are of the raw image, `p` is of the rectified one.  All are given for the whole sensor:
a region of interest moves the principal point, binning divides.  The centre of pixel i is at i, so
that a bin of b pixels has its centre at (x + 0.5) / b - 0.5.  `p`'s fourth column and `r` (stereo)
are not used: the mounting is that of the image's own frame_id.

Takes messages of rclpy and of rosbags alike: their fields have the same names.
"""

from typing import Any, NamedTuple, Optional

import numpy as np

from mta_perception.foreign_text import shown
from mta_perception.frames import Distortion, Size
from mta_perception.geometry import Array
from mta_perception.reasons import Code, Refused

_MOST_COEFFICIENT = 1e4  # larger ones fold the image over itself
# Model -> numbers of coefficients that it can come with; what is left out is zero.
_COEFFICIENTS = {
    'plumb_bob': (4, 5),
    'rational_polynomial': (4, 5, 8, 12, 14),
    'equidistant': (4,),
}
_OTHER_NAMES = {'radtan': 'plumb_bob', 'fisheye': 'equidistant'}
_PINHOLE_NAMES = ('', 'none', 'pinhole', 'perspective')  # with coefficients that are zero


class Lens(NamedTuple):
    """What a CameraInfo says of its camera's images."""

    intrinsics: Array  # (3, 3) pixels of the image as it is sent
    width: int  # of that image [px]
    height: int
    distortion: Optional[Distortion]  # None: a pinhole
    sensor: Optional[Size]  # where the image is a region of the sensor: the whole of it
    rectified: bool  # whether `p` was used


def lens_of(info: Any, rectified: bool) -> Lens:
    """sensor_msgs/CameraInfo -> Lens of the raw or of the rectified images.

    Raises Refused, with what came and what was expected.
    """
    k = np.array(info.k, dtype=np.float64).reshape(3, 3)
    p = np.array(info.p, dtype=np.float64).reshape(3, 4)[:, :3]
    d = np.array(info.d, dtype=np.float64)
    if not info.width or not info.height:
        raise Refused(
            Code.IMPOSSIBLE_CALIBRATION,
            f'camera_info says {info.width}x{info.height} pixels; expected the size of the image.',
        )
    # A driver of rectified images alone may know no k.
    rectified = rectified or (not k.any() and not d.any() and _is_camera(p))
    matrix = p if rectified and (p.any() or d.any()) else k
    if not _is_camera(matrix):
        name = 'p' if matrix is p else 'k'
        raise Refused(
            Code.IMPOSSIBLE_CALIBRATION,
            f'camera_info {name} = {matrix.ravel().tolist()} is not the camera matrix of the '
            f'{"rectified" if rectified else "raw"} image; expected finite values with focal '
            'lengths above 0. Calibrate the camera, or set the parameter images.',
        )
    distortion = None if rectified else _distortion(info.distortion_model, d)
    region_from_sensor, size = _region(info)
    sensor = int(info.width), int(info.height)
    is_region = _roi_size(info) != sensor
    return Lens(
        region_from_sensor @ matrix,
        *size,
        distortion,
        sensor if is_region else None,
        rectified,
    )


def _is_camera(matrix: Array) -> bool:
    return bool(
        np.isfinite(matrix).all()
        and matrix[0, 0] > 0
        and matrix[1, 1] > 0
        and np.allclose(matrix[2], (0, 0, 1), atol=1e-6)
    )


def _distortion(name: str, coefficients: Array) -> Distortion | None:
    """Raises Refused for a model that is not known: its images must not pass for a pinhole's."""
    if not (np.abs(coefficients) < _MOST_COEFFICIENT).all():  # NaN too
        raise Refused(
            Code.IMPOSSIBLE_CALIBRATION,
            f'camera_info d = {shown(coefficients.tolist())}; expected finite coefficients below '
            f'{_MOST_COEFFICIENT:g}.',
        )
    model = name.strip().lower()
    model = _OTHER_NAMES.get(model, model)
    is_zero = not coefficients.any()
    if model in _PINHOLE_NAMES and is_zero:
        return None
    if model == '':
        # Four may be plumb_bob's or equidistant's.
        sizes = {5: 'plumb_bob', 8: 'rational_polynomial', 12: 'rational_polynomial'}
        model = {**sizes, 14: 'rational_polynomial'}.get(len(coefficients), '')
    if model not in _COEFFICIENTS:
        raise Refused(
            Code.UNKNOWN_DISTORTION,
            f'camera_info has distortion_model {shown(name)} with {len(coefficients)} '
            f'coefficients; expected one of {", ".join(_COEFFICIENTS)}. Publish rectified images '
            '(image_proc), or calibrate with one of these.',
        )
    # All zero is a pinhole, but for the fisheye, which bends even then.
    if is_zero and model != 'equidistant':
        return None
    most = _COEFFICIENTS[model][-1]
    if not coefficients[most:].any():  # some drivers fill up with zeros
        coefficients = coefficients[:most]
    if len(coefficients) not in _COEFFICIENTS[model]:
        raise Refused(
            Code.UNKNOWN_DISTORTION,
            f'camera_info has {len(coefficients)} coefficients of {model}; expected '
            f'{" or ".join(map(str, _COEFFICIENTS[model]))}.',
        )
    return Distortion(model, tuple(coefficients.tolist()))


def _roi_size(info: Any) -> Size:
    roi = info.roi
    return (
        int(roi.width or info.width - roi.x_offset),
        int(roi.height or info.height - roi.y_offset),
    )


def _region(info: Any) -> tuple[Array, Size]:
    """((3, 3) image pixels from pixels of the whole sensor, size of the image)."""
    roi = info.roi
    width, height = _roi_size(info)
    bins = max(1, int(info.binning_x)), max(1, int(info.binning_y))
    if (
        roi.x_offset + width > info.width
        or roi.y_offset + height > info.height
        or min(width // bins[0], height // bins[1]) < 1
    ):
        raise Refused(
            Code.IMPOSSIBLE_CALIBRATION,
            f'camera_info has a roi of {width}x{height} at ({roi.x_offset}, {roi.y_offset}), '
            f'binned {bins[0]}x{bins[1]}; expected a part of its {info.width}x{info.height} '
            'pixels, in pixels before binning.',
        )
    return np.array(
        [
            [1 / bins[0], 0.0, (0.5 - roi.x_offset) / bins[0] - 0.5],
            [0.0, 1 / bins[1], (0.5 - roi.y_offset) / bins[1] - 0.5],
            [0.0, 0.0, 1.0],
        ]
    ), (width // bins[0], height // bins[1])
