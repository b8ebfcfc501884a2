"""What is known of the six cameras: intrinsics of CameraInfo, mounting of transforms.  No ROS."""

from collections import Counter

from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraCalibration
from mta_perception.geometry import Array
from mta_perception.lens import Lens
from mta_perception.pipeline.camera_geometry import (
    body_frame_fault,
    is_optical_of,
    place_faults,
    same_calibration,
    same_lens,
)
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
        # by camera, what contradicts its place among the cameras (it is used all the same)
        self.out_of_place: dict[str, Reason] = {}
        # by camera, how often its calibration was replaced by another
        self.changes: Counter[str] = Counter()
        self._lenses: dict[str, Lens] = {}  # by camera
        self._refused_lenses: dict[str, Reason] = {}  # by camera, of its newest CameraInfo
        self._frames: dict[str, str] = {}  # camera -> frame_id of its images
        self._mounts: frozenset[str] = frozenset()
        self._mounts_of = -1  # shape of the tree that they are of

    def set_lens(self, camera: str, lens: Lens) -> bool:
        """Take a CameraInfo; True where it differs from the one before."""
        self._refused_lenses.pop(camera, None)
        known = self._lenses.get(camera)
        if known and same_lens(known, lens):
            return False
        self._lenses[camera] = lens
        self._update(camera)
        return known is not None

    def refuse_lens(self, camera: str, reason: Reason) -> None:
        """Note a CameraInfo that cannot be used; one that came before stays."""
        self._refused_lenses[camera] = reason
        if camera not in self._lenses:
            self._update(camera)

    def lens(self, camera: str) -> Lens | None:
        """What its CameraInfo says, None where none has come that can be used."""
        return self._lenses.get(camera)

    def set_frame(self, camera: str, frame_id: str) -> None:
        """Take the frame_id of an image."""
        if self._frames.get(camera) != frame_id:
            self._frames[camera] = frame_id
            self._mounts_of = -1
            self._update(camera)

    def set_transform(
        self, parent: str, child: str, parent_from_child: Array, static: bool
    ) -> None:
        """Take a transform of /tf_static (static) or /tf, where mounts may come again and again.

        Raises Refused where it is none.
        """
        changed = self.tree.set(parent, child, parent_from_child, static)
        if changed and child in self._mount_links():
            for camera in self._frames:
                self._update(camera)

    def _mount_links(self) -> frozenset[str]:
        """Frames whose link to their parent places a camera; most of /tf is none of them."""
        if self._mounts_of != self.tree.shape:
            self._mounts_of = self.tree.shape
            self._mounts = frozenset().union(
                *(
                    self.tree.links_between(self.base_frame, frame)
                    for frame in self._frames.values()
                )
            )
        return self._mounts

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
        if calibrations.get(camera) is not before:
            self.out_of_place = {
                name: Reason(Code.OUT_OF_PLACE, fault)
                for name, fault in place_faults(calibrations).items()
            }
        self.calibrations = calibrations

    def _optical_frames_of(self, body: str) -> list[str]:
        frames = {frame: self.tree.lookup(body, frame) for frame in self.tree.frames()}
        return [
            frame
            for frame, body_from_frame in frames.items()
            if body_from_frame is not None and is_optical_of(body_from_frame)
        ]

    def _calibration(self, camera: str) -> CameraCalibration | Reason:
        """The calibration, or why there is none."""
        if camera not in self._frames:
            return Reason(Code.NO_IMAGE_YET)
        if camera not in self._lenses:
            return self._refused_lenses.get(
                camera, Reason(Code.NO_CAMERA_INFO, 'no valid one has come yet')
            )
        frame = self._frames[camera]
        ego_from_camera = self.tree.lookup(self.base_frame, frame)
        if ego_from_camera is None:
            return Reason(
                Code.NO_TRANSFORM, f'from {frame or "(empty frame_id)"} to {self.base_frame}'
            )
        if body_frame_fault(ego_from_camera):
            fault = body_frame_fault(ego_from_camera, frame, self._optical_frames_of(frame))
            return Reason(Code.BODY_FRAME, fault)
        lens = self._lenses[camera]
        return CameraCalibration(
            lens.intrinsics,
            lens.width,
            lens.height,
            ego_from_camera,
            lens.distortion,
            lens.sensor,
        )
