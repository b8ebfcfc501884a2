"""A bag, and what a node said about it, as pictures and a film.  Needs no ROS.

The film runs in bag time at a fixed number of pictures a second.  Each shows the newest detections
the node had made by then, on the images they were made from; ground truth, known at key frames, is
interpolated to the same instant.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mta_perception.atomic_files import whole, write_atomically
from mta_perception.bags.recording import (
    Poses,
    RecordedCaption,
    RecordedDetections,
    Recording,
    read_recording,
    with_track_velocities,
)
from mta_perception.bags.scene_bag import Sample, SceneBag
from mta_perception.contract import CAMERAS, CLASSES, BoxCode
from mta_perception.directory_lock import sole_writer
from mta_perception.drawing.bev_panel import Box
from mta_perception.drawing.overlay import DrawnObject, draw_overlay
from mta_perception.frames import CameraImage, ImageError, Pixels
from mta_perception.geometry import (
    Array,
    interpolate_rigid,
    invert_rigid,
    rigid_from_yaw,
    transform,
    transform_boxes,
    yaw_from_rigid,
)
from mta_perception.pipeline.camera_geometry import CameraGeometry, camera_geometry
from mta_perception.sentences import Said, claims_of, contradictions, short_form, shown

OnProgress = Callable[[int, int], object]  # (done, total)

TRAIL_S = 4.0
IMAGE_MAX_AGE_S = 0.3  # an older image counts as none, as in the node
STILLS = 6


class Written(NamedTuple):
    """What `film` left behind."""

    video: Path
    frames: int
    stills: list[Path]


class Moment(NamedTuple):
    """What one picture of the film shows."""

    stamp_ns: int
    objects: list[DrawnObject]  # predictions (or ground truth where nothing was recorded)
    trails: dict[str, Array]  # track_id -> (n, 2), ego frame at stamp_ns


def film(
    bag: str | Path,
    out: str | Path,
    recorded: str | Path | None = None,
    fps: float = 10.0,
    width: int = 1600,
    on_progress: OnProgress | None = None,
) -> Written:
    """Draw `bag` (directory), with the recorded detections where given, into `out`.

    Writes out/demo.mp4 and out/frame_*.png.  on_progress(done, total) follows each picture.
    Raises ValueError where there is nothing to draw or the film cannot be read back.
    """
    scene = SceneBag(bag)
    recording = read_recording(recorded) if recorded is not None else None
    truth = GroundTruth(scene)
    moments = (
        _recorded_moments(truth, recording, fps)
        if recording is not None
        else _true_moments(truth, fps)
    )
    if not moments:
        raise ValueError(
            f'{recorded or bag}: nothing to draw, it has '
            f'{"no detections" if recording is not None else "no key frames"}.'
        )
    out = Path(out)
    with sole_writer(out), whole(out / 'demo.mp4') as video:
        pictures = _pictures(truth, recording is not None, moments, width)
        stills = _write(pictures, video, out, fps, len(moments), on_progress)
        check_video(video, len(moments))
    return Written(out / 'demo.mp4', len(moments), stills)


def _write(
    pictures: Iterable[Pixels],
    video: Path,
    out: Path,
    fps: float,
    count: int,
    on_progress: OnProgress | None,
) -> list[Path]:
    """Write `count` RGB pictures as a video, and some of them as PNG into `out`; their paths."""
    still_at = set(np.linspace(0, count - 1, min(STILLS, count)).round().astype(int))
    stills: list[Path] = []
    writer = None
    for index, picture in enumerate(pictures):
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if writer is None:
            writer = cv2.VideoWriter(
                str(video), cv2.VideoWriter.fourcc(*'mp4v'), fps, (bgr.shape[1], bgr.shape[0])
            )
        writer.write(bgr)
        if index in still_at:
            stills.append(out / f'frame_{index:04d}.png')
            write_atomically(stills[-1], cv2.imencode('.png', bgr)[1].tobytes())
        if on_progress:
            on_progress(index + 1, count)
    assert writer is not None, 'there is at least one picture'
    writer.release()
    return stills


def check_video(path: Path, frames: int) -> None:
    """Read the film back.  Raises ValueError where a player would not see all its pictures."""
    reader = cv2.VideoCapture(str(path))
    found = 0
    while reader.grab():
        found += 1
    reader.release()
    if found != frames:
        raise ValueError(
            f'{path} has {found} pictures after writing {frames}; the video codec of '
            'this OpenCV is broken. The frame_*.png are whole.'
        )


class _HalfSize(NamedTuple):
    """Of a camera's image [px]."""

    width: int
    height: int


class GroundTruth:
    """A scene's annotations at any stamp, and its ego poses."""

    def __init__(self, scene: SceneBag) -> None:
        self.scene = scene
        self.world_from_ego_at = scene.world_from_ego_at
        self.stamps = [sample.stamp_ns for sample in scene.samples]
        self._tracks = [_world_tracks(sample) for sample in scene.samples]

    @cached_property
    def views(self) -> dict[str, CameraGeometry]:
        """camera -> its geometry at half its size, undistorted."""
        return {
            camera: camera_geometry(
                calibration,
                _HalfSize(max(1, calibration.width // 2), max(1, calibration.height // 2)),
            )
            for camera, calibration in self.scene.calibrations.items()
        }

    def at(self, stamp_ns: int) -> list[DrawnObject]:
        """DrawnObjects in the ego frame at `stamp_ns`: interpolated between the key frames around
        it where an instance is in both, else as in the nearer one."""
        if not self.stamps:
            return []
        after = min(int(np.searchsorted(self.stamps, stamp_ns)), len(self.stamps) - 1)
        before = max(0, after - 1)
        span = max(1, self.stamps[after] - self.stamps[before])
        fraction = float(np.clip((stamp_ns - self.stamps[before]) / span, 0.0, 1.0))
        earlier, later = self._tracks[before], self._tracks[after]
        ego_from_world = invert_rigid(self.world_from_ego_at(stamp_ns))
        objects = []
        for track_id, item in (later if fraction > 0.5 else earlier).items():
            box = item.box
            if track_id in earlier and track_id in later:
                box = _interpolated(earlier[track_id].box, later[track_id].box, fraction)
            objects.append(item._replace(box=transform_boxes(ego_from_world, box[None])[0]))
        return objects


def _world_tracks(sample: Sample) -> dict[str, DrawnObject]:
    """Instance -> DrawnObject with its box in the world frame; instance tokens are too long to
    read, so nothing is written for the track."""
    boxes = transform_boxes(sample.world_from_ego, sample.boxes)
    return {
        instance: DrawnObject(box, CLASSES[label], 1.0, '', caption)
        for box, label, instance, caption in zip(
            boxes, sample.labels, sample.instances, sample.captions
        )
    }


def _interpolated(box_a: Box, box_b: Box, fraction: float) -> Box:
    """A box between two of the same object, world frame."""
    poses = [rigid_from_yaw(np.arctan2(box[6], box[7]), box[:3]) for box in (box_a, box_b)]
    pose = interpolate_rigid(poses[0], poses[1], fraction)
    yaw = yaw_from_rigid(pose)
    return np.concatenate(
        [pose[:3, 3], box_a[BoxCode.SIZE], [np.sin(yaw), np.cos(yaw)], box_a[BoxCode.VELOCITY]]
    )


def _true_moments(truth: GroundTruth, fps: float) -> list[Moment]:
    """Ground truth itself as what is shown, on a grid of 1 / fps seconds."""
    if not truth.stamps:
        return []
    steps = np.arange(truth.stamps[0], truth.stamps[-1] + 1, round(1e9 / fps))
    return [
        Moment(int(stamp), [_truthful(item) for item in truth.at(int(stamp))], {})
        for stamp in steps
    ]


def _truthful(item: DrawnObject) -> DrawnObject:
    """The short form where the key frame's sentence does not fit between the key frames."""
    if not contradictions(claims_of(item.caption), item.class_name, item.box):
        return item
    return item._replace(caption=short_form(item.class_name, item.box))


def _recorded_moments(truth: GroundTruth, recording: Recording, fps: float) -> list[Moment]:
    """What was known at each step of the grid; neighbours may be the same Moment."""
    messages = with_track_velocities(recording.detections, truth.world_from_ego_at)
    if not messages:
        return []
    stamps = np.array([message.stamp_ns for message in messages])
    shown: dict[int, Moment] = {}
    moments = []
    for step in np.arange(stamps[0], stamps[-1] + 1, round(1e9 / fps)):
        index = int(np.searchsorted(stamps, step, side='right')) - 1
        if index not in shown:
            shown[index] = Moment(
                messages[index].stamp_ns,
                _drawn_objects(messages[index], recording.captions),
                _trails(truth.world_from_ego_at, messages[: index + 1]),
            )
        moments.append(shown[index])
    return moments


def _drawn_objects(
    message: RecordedDetections, captions: Iterable[RecordedCaption]
) -> list[DrawnObject]:
    """The recorded boxes, each with its track's newest sentence while that fits, else the short
    form."""
    said = {
        one.track_id: Said(one.caption, one.stamp_ns, one.class_name, one.xy)
        for one in captions
        if one.stamp_ns <= message.stamp_ns
    }
    return [
        DrawnObject(
            box,
            name,
            float(score),
            track_id,
            shown(said.get(track_id), name, box, message.stamp_ns),
        )
        for box, name, score, track_id in zip(
            message.boxes, message.class_names, message.scores, message.track_ids
        )
    ]


def _trails(world_from_ego_at: Poses, messages: Sequence[RecordedDetections]) -> dict[str, Array]:
    """Where each track of the last message was in the last TRAIL_S seconds, in its ego frame."""
    now = messages[-1]
    ego_from_world = invert_rigid(world_from_ego_at(now.stamp_ns))
    trails: dict[str, list[Array]] = {track_id: [] for track_id in now.track_ids if track_id}
    for message in messages:
        if now.stamp_ns - message.stamp_ns > TRAIL_S * 1e9:
            continue
        now_from_then = ego_from_world @ world_from_ego_at(message.stamp_ns)
        for box, track_id in zip(message.boxes, message.track_ids):
            if track_id in trails:
                trails[track_id].append(transform(now_from_then, box[:3])[:2])
    return {track_id: np.array(points) for track_id, points in trails.items()}


def _pictures(
    truth: GroundTruth, has_recording: bool, moments: Iterable[Moment], width: int
) -> Iterator[Pixels]:
    """One RGB picture per moment, in order; the bag's images are read once, as a stream."""
    stream = truth.scene.images()
    newest: dict[str, CameraImage] = {}
    ahead = next(stream, None)
    last, picture = None, None
    for moment in moments:
        if picture is None or moment is not last:
            while ahead is not None and ahead.stamp_ns <= moment.stamp_ns:
                newest[ahead.camera] = ahead
                ahead = next(stream, None)
            picture = _draw(truth, has_recording, moment, newest, width)
            last = moment
        yield picture


def _draw(
    truth: GroundTruth,
    has_recording: bool,
    moment: Moment,
    newest: dict[str, CameraImage],
    width: int,
) -> Pixels:
    images: dict[str, Pixels | None] = {}
    matrices: dict[str, Array] = {}
    world_from_ego = truth.world_from_ego_at(moment.stamp_ns)
    for camera in CAMERAS:
        image = newest.get(camera)
        if image is None or moment.stamp_ns - image.stamp_ns > IMAGE_MAX_AGE_S * 1e9:
            continue
        view = truth.views[camera]
        if view.fault is None:
            images[camera] = _seen(image, view)
            matrices[camera] = view.image_from_ego(
                truth.world_from_ego_at(image.stamp_ns), world_from_ego
            )
    seconds = (moment.stamp_ns - truth.stamps[0]) / 1e9 if truth.stamps else 0.0
    header = f'{truth.scene.name} · {max(seconds, 0.0):.1f} s · {truth.scene.description}'
    if not has_recording:
        return draw_overlay(
            images,
            matrices,
            moment.objects,
            header=header,
            width=width,
            objects_are='ground truth',
        )
    return draw_overlay(
        images, matrices, moment.objects, truth.at(moment.stamp_ns), moment.trails, header, width
    )


def _seen(image: CameraImage, view: CameraGeometry) -> Pixels | None:
    """(h, w, 3) uint8 RGB of a view; None where the image cannot be read."""
    assert view.plan is not None and view.reader is not None, 'a view without a fault'
    width, height = view.plan.size
    picture = np.empty((height, width, 3), np.uint8)
    try:
        view.reader.read(image, picture)
    except ImageError:
        return None
    return picture[: view.plan.scaled[1], : view.plan.scaled[0]]
