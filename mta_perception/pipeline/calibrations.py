"""What is known of the six cameras: intrinsics of CameraInfo, mounting of /tf_static.  No ROS."""

from collections import Counter

from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraCalibration
from mta_perception.geometry import Array
from mta_perception.pipeline.camera_geometry import Lens, same_calibration, same_lens
from mta_perception.pipeline.transform_tree import TransformTree
from mta_perception.reasons import Code, Reason


class Rig:
    """CameraInfo, frame names and transforms in, calibrations out.  One thread writes.

    `calibrations` is a new dict after each change, so that another thread may go on reading the
    one it has.
    """

    def __init__(self, base_frame: str) -> None:
        self.base_frame = base_frame
        self.tree = TransformTree()
        self.calibrations: dict[str, CameraCalibration] = {}  # by camera
        # by camera, why it has no calibration
        self.missing = dict.fromkeys(CAMERAS, Reason(Code.NO_IMAGE_YET))
        # by camera, how often its calibration was replaced by another
        self.changes: Counter[str] = Counter()
        self._lenses: dict[str, Lens] = {}  # by camera
        self._frames: dict[str, str] = {}  # camera -> frame_id of its images

    def set_lens(self, camera: str, intrinsics: Array, width: int, height: int) -> bool:
        """Take a CameraInfo; True where it differs from the one before."""
        known = self._lenses.get(camera)
        if known and same_lens(known, (intrinsics, width, height)):
            return False
        self._lenses[camera] = intrinsics, width, height
        self._update(camera)
        return known is not None

    def set_frame(self, camera: str, frame_id: str) -> None:
        """Take the frame_id of an image."""
        if self._frames.get(camera) != frame_id:
            self._frames[camera] = frame_id
            self._update(camera)

    def set_static(self, parent: str, child: str, parent_from_child: Array) -> None:
        """Take a transform of /tf_static.  Raises Refused where it is none."""
        if self.tree.set(parent, child, parent_from_child, static=True):
            for camera in self._frames:
                self._update(camera)

    def frames_seen(self) -> set[str]:
        """Cameras that have sent an image."""
        return set(self._frames)

    def _update(self, camera: str) -> None:
        calibration = self._calibration(camera)
        calibrations = dict(self.calibrations)
        before = calibrations.pop(camera, None)
        if isinstance(calibration, Reason):
            self.missing[camera] = calibration
        else:
            self.missing.pop(camera, None)
            if before is not None and same_calibration(before, calibration):
                # The older one stays: many small steps away from it are a change in the end.
                calibration = before
            elif before is not None:
                self.changes[camera] += 1
            calibrations[camera] = calibration
        self.calibrations = calibrations

    def _calibration(self, camera: str) -> CameraCalibration | Reason:
        """The calibration, or why there is none."""
        if camera not in self._frames:
            return Reason(Code.NO_IMAGE_YET)
        if camera not in self._lenses:
            return Reason(Code.NO_CAMERA_INFO, 'no valid one has come yet')
        frame = self._frames[camera]
        ego_from_camera = self.tree.lookup(self.base_frame, frame)
        if ego_from_camera is None:
            return Reason(
                Code.NO_TRANSFORM, f'from {frame or "(empty frame_id)"} to {self.base_frame}'
            )
        return CameraCalibration(*self._lenses[camera], ego_from_camera)
