"""nuScenes-format dataset -> one rosbag2 (mcap) directory a scene, as docs/bags.md describes.

Scenes are written in parallel processes, each streaming its images from disk, into a hidden
directory that is renamed once it is whole: a killed conversion leaves nothing that looks like a
bag, and the same command goes on with the scenes that are not there yet.
"""

from concurrent.futures import ProcessPoolExecutor, as_completed
import errno
import multiprocessing
import os
from pathlib import Path
import shutil
import signal

from rosbags.rosbag2 import StoragePlugin, Writer
from ruamel.yaml import YAML, YAMLError

from mta_perception.atomic_files import whole
from mta_perception.bags.qos import offered_qos
from mta_perception.bags.scene_bag import image_topic
from mta_perception.bags.typestore import typestore
from mta_perception.contract import CAMERAS, nuscenes_channel, optical_frame
from mta_perception.progress import Progress
from mta_training.conversion import messages
from mta_training.conversion.jpeg_check import read_jpeg
from mta_training.conversion.nuscenes_scene import NuScenesScene, rebuilt_caption
from mta_training.conversion.table_index import (
    DatasetError,
    TableIndex,
    build_index,
    check_tables,
    find_version,
    stream_rows,
)

# What the bag says it was made from; grows whenever the same scene gives another bag.
FORMAT = 'mta bag 1'
VOLATILE = offered_qos(10)
LATCHED = offered_qos(1, latched=True)
_TYPES = {
    '/tf_static': 'tf2_msgs/msg/TFMessage',
    '/tf': 'tf2_msgs/msg/TFMessage',
    '/odom': 'nav_msgs/msg/Odometry',
    '/imu': 'sensor_msgs/msg/Imu',
    '/ground_truth/detections': 'vision_msgs/msg/Detection3DArray',
    '/ground_truth/captions': 'mta_msgs/msg/ObjectCaptionArray',
    '/nuscenes/sample': 'std_msgs/msg/String',
}


def convert(dataroot, out, *, version=None, scenes=None, workers=None, progress=True):
    """Convert the scenes of a dataset into bags below `out`; returns the list of bag directories.

    version  name of the folder with the tables, None = the only one there
    scenes   names to convert, None = all
    workers  processes, None = one per core
    Bags that are there already are kept.  Raises DatasetError where the dataset is not complete
    or `out` cannot be written.
    """
    out = Path(out)
    version = version or find_version(dataroot)
    folder = check_tables(dataroot, version)
    rows = [row for row, _ in stream_rows(folder / 'scene.json')]
    chosen = _chosen(rows, scenes, folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        todo = [row for row in chosen if not _is_there(out / row['name'], row['token'])]
        if todo:
            _convert_all(Path(dataroot), version, todo, out, workers, progress)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DatasetError(
                f'no space left on the disk of {out}. Free some and run the same '
                'command again: it goes on with the scene it stopped in.'
            ) from error
        raise DatasetError(f'{error.filename or out}: {error.strerror or error}.') from error
    return [out / row['name'] for row in chosen]


def _chosen(rows, names, folder):
    if not rows:
        raise DatasetError(f'{folder / "scene.json"} lists no scenes: nothing to convert.')
    there = [row['name'] for row in rows]
    unknown = sorted(set(names or ()) - set(there))
    if unknown:
        raise DatasetError(
            f'scene {", ".join(unknown)} is not in {folder}; it has '
            f'{", ".join(there[:10])}{" ..." if len(there) > 10 else ""}.'
        )
    return [row for row in rows if not names or row['name'] in names]


def _is_there(bag, scene_token):
    """Is `bag` the whole bag of this scene?  Raises DatasetError where it is something else."""
    metadata = bag / 'metadata.yaml'
    if not bag.exists() or (bag.is_dir() and not any(bag.iterdir())):
        return False
    try:
        noted = (
            YAML(typ='safe').load(metadata.read_text(encoding='utf-8'))[
                'rosbag2_bagfile_information'
            ]['custom_data']
            or {}
        )
    except (OSError, YAMLError, KeyError, TypeError):
        noted = {}
    if noted.get('format') == FORMAT and noted.get('scene_token') == scene_token:
        return True
    raise DatasetError(
        f'{bag} is there already and is no bag of this scene made by this version. '
        'Remove it, or choose another --out.'
    )


def _convert_all(dataroot, version, todo, out, workers, show):
    index = out / f'.index-{os.getpid()}.sqlite'
    with Progress('scenes', len(todo), show=show) as bar:
        try:
            build_index(
                dataroot,
                version,
                index,
                rebuilt_caption,
                lambda name: bar.update(0, f'reading {name}'),
            )
            bar.update(0, 'converting')
            jobs = [(index, dataroot, version, row, out) for row in todo]
            for _ in _results(jobs, min(workers or os.cpu_count() or 1, len(todo))):
                bar.advance()
        finally:
            index.unlink(missing_ok=True)


def _results(jobs, workers):
    """Do all jobs, yield as each is done; the first failure ends the rest."""
    if workers == 1:
        yield from (convert_scene(*job) for job in jobs)
        return
    # Fresh interpreters: the progress bar has a thread, with which forking is not safe.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, _ignore_interrupts) as pool:
        futures = [pool.submit(_convert_interruptibly, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _ignore_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _convert_interruptibly(*job):
    # Ctrl-C reaches every process; one that waits for work would only print where it waits.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return convert_scene(*job)
    finally:
        _ignore_interrupts()


def _remove_leftovers(out):
    """Delete what killed conversions left; what a living process still writes stays."""
    for path in [*out.glob('.partial-*'), *out.glob('.index-*')]:
        owner = path.name.removesuffix('.sqlite').rpartition('-')[2]
        if owner.isdigit() and Path('/proc', owner).exists() and int(owner) != os.getpid():
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def convert_scene(index_path, dataroot, version, scene_row, out):
    """Write one scene's bag into `out`; returns its directory.  Raises DatasetError, OSError."""
    index = TableIndex(index_path)
    target = Path(out) / scene_row['name']
    try:
        scene = NuScenesScene(index, dataroot, version, scene_row)
        with whole(target, shared=True) as partial:
            with Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
                writer.set_custom_data('format', FORMAT)
                writer.set_custom_data('scene_token', scene_row['token'])
                _SceneWriter(writer, scene).write()
            _sync_to_disk(partial)
        return target
    finally:
        index.close()


def _sync_to_disk(directory):
    for path in [*directory.iterdir(), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _SceneWriter:
    """One scene, its messages merged in time order."""

    def __init__(self, writer, scene):
        self.writer, self.scene = writer, scene
        calibrations = scene.calibrations()
        cameras = [camera for camera in CAMERAS if nuscenes_channel(camera) in calibrations]
        if not cameras:
            raise DatasetError(
                f'{scene.name} has no camera images; expected the channels '
                f'{", ".join(map(nuscenes_channel, CAMERAS))}.'
            )
        self.camera_info = {
            camera: messages.camera_info(camera, calibrations[nuscenes_channel(camera)])
            for camera in cameras
        }
        camera_of = {nuscenes_channel(camera): camera for camera in cameras}
        # Cameras are seen from their optical frame; lidar and radars have one frame.
        self.frames = {
            optical_frame(camera_of[channel]) if channel in camera_of else channel.lower(): row
            for channel, row in calibrations.items()
        }
        self.stamps, self.poses = scene.ego_poses()
        self.twists = messages.twists(self.stamps, self.poses)
        self.ego_messages = messages.EgoMessages()
        self.imu = scene.imu()
        self.connections = {}

    def write(self):
        """All messages in the order of their stamps."""
        self._open_topics()
        samples = [(row['timestamp'] * 1000, row) for row in self.scene.samples]
        first = min(int(self.stamps[0]), samples[0][0])
        last = max(int(self.stamps[-1]), samples[-1][0])
        # (stamp, order among equals, writer, argument): poses before the images that need them.
        events = [(int(stamp), 0, self._pose, row) for row, stamp in enumerate(self.stamps)]
        events += [(image.stamp_ns, 1, self._image, image) for image in self.scene.images()]
        events += [(stamp, 2, self._sample, row) for stamp, row in samples]
        events += [
            (row['utime'] * 1000, 3, self._imu, row)
            for row in self.imu
            if first <= row['utime'] * 1000 <= last
        ]
        self._put('/tf_static', first, messages.static_tree(first, self.frames))
        for stamp, _, put, argument in sorted(events, key=lambda event: event[:2]):
            put(stamp, argument)

    def _open_topics(self):
        types = {topic: name for topic, name in _TYPES.items() if topic != '/imu' or self.imu}
        for camera in self.camera_info:
            types[image_topic(camera)] = 'sensor_msgs/msg/CompressedImage'
            types[f'/{camera}/camera_info'] = 'sensor_msgs/msg/CameraInfo'
        for topic, name in types.items():
            self.connections[topic] = self.writer.add_connection(
                topic,
                name,
                typestore=typestore(),
                offered_qos_profiles=[LATCHED if topic == '/tf_static' else VOLATILE],
            )

    def _put(self, topic, stamp_ns, cdr):
        self.writer.write(self.connections[topic], stamp_ns, cdr)

    def _pose(self, stamp_ns, row):
        tree, odometry = self.ego_messages.at(stamp_ns, self.poses[row], self.twists[row])
        self._put('/tf', stamp_ns, tree)
        self._put('/odom', stamp_ns, odometry)

    def _image(self, stamp_ns, image):
        jpeg = read_jpeg(image.path, image.width, image.height)
        # Before the image, so that who has the image knows its camera.
        self._put(
            f'/{image.camera}/camera_info',
            stamp_ns,
            messages.restamped(self.camera_info[image.camera], stamp_ns),
        )
        self._put(
            image_topic(image.camera),
            stamp_ns,
            messages.compressed_image(stamp_ns, optical_frame(image.camera), jpeg),
        )

    def _sample(self, stamp_ns, sample):
        annotations = self.scene.annotations(sample)
        self._put('/ground_truth/detections', stamp_ns, messages.detections(stamp_ns, annotations))
        self._put('/ground_truth/captions', stamp_ns, messages.captions(stamp_ns, annotations))
        self._put(
            '/nuscenes/sample',
            stamp_ns,
            messages.sample_record(stamp_ns, self.scene, sample, annotations),
        )

    def _imu(self, stamp_ns, row):
        self._put('/imu', stamp_ns, messages.imu(stamp_ns, row))
