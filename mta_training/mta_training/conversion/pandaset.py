"""PandaSet's public layout -> a dataset in the nuScenes format, on which everything else works.

    SEQUENCE/camera/<name>_camera/{NN.jpg, intrinsics.json, poses.json, timestamps.json}
    SEQUENCE/lidar/{poses.json, timestamps.json}
    SEQUENCE/annotations/cuboids/NN.json.gz

PandaSet's pose of the lidar is that of a body frame, x right, y forward, z up, 0.32 m above the
road near the rear axle; base_link lies under it, x forward.  Cuboids are in the world; yaw 0 looks
along +y; `dimensions` are width, length, height.  Cuboids of both lidars are one object
(`sibling_id`).  Labels without a class of ours (signs, animals, rails) are left out.
"""

from pathlib import Path
import shutil

import cv2
import numpy as np

from mta_perception.atomic_files import write_atomically
from mta_perception.contract import nuscenes_channel
from mta_perception.directory_lock import sole_writer
from mta_perception.geometry import (
    invert_rigid,
    level_pose,
    pose_at,
    rigid,
    transform,
)
from mta_training.captions import grammar
from mta_training.conversion.dataset_writer import (
    PER_SCENE,
    assemble,
    dump,
    pose_fields,
    token,
)
from mta_training.conversion.pandaset_files import (
    cuboids_of,
    inside,
    intrinsics_of,
    microseconds,
    poses_of,
)
from mta_training.conversion.table_fields import DatasetError

VERSION = 'v1.0-pandaset'
NOTE = 'pandaset.json'  # of what was begun: the sequences' names and stamps
FRAMES_PER_SAMPLE = 5  # annotated at 10 Hz; a sample every half second, as nuScenes
BODY_HEIGHT_M = 0.32
CAMERAS = {
    'cam_front': 'front',
    'cam_front_right': 'front_right',
    'cam_front_left': 'front_left',
    'cam_back': 'back',
    'cam_back_left': 'left',
    'cam_back_right': 'right',
}
# x right, y forward, z up -> x forward, y left, z up
EGO_FROM_BODY = rigid(
    np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), [0.0, 0.0, BODY_HEIGHT_M]
)


def import_pandaset(directory, out):
    """Import one sequence, or a folder of sequences, into the dataset `out`; returns the scenes'
    names.  An import that was killed goes on where it stopped.  Raises DatasetError for what is
    missing or damaged, naming the file; BusyError where another process writes `out`.
    """
    directory, out = Path(directory), Path(out)
    folders = _sequences(directory)
    with sole_writer(out):
        sequences = [_Sequence(folder, out) for folder in folders]
        _prepare(out, sequences)
        parts = []
        for folder, sequence in zip(folders, sequences):
            parts.append(out / '.scenes' / f'{folder.name}.json')
            if not parts[-1].exists():  # written when all else of it is there
                write_atomically(parts[-1], dump(sequence.scene()))
        black = cv2.imencode('.png', np.zeros((8, 8), np.uint8))[1].tobytes()
        write_atomically(out / 'maps' / 'none.png', black)  # the devkit wants one; there is none
        assemble(out, VERSION, parts, 'pandaset')
    return [sequence.name for sequence in sequences]


def _prepare(out, sequences):
    """Note what is imported, or make sure that what is in `out` was begun with the same."""
    noted = dump({sequence.name: sequence.stamps_us.tolist() for sequence in sequences})
    path = out / NOTE
    if path.is_file() and path.read_bytes() == noted:
        return
    # What a process left that was killed while it wrote the note does not count.
    if out.exists() and any(not one.name.startswith('.partial-') for one in out.iterdir()):
        raise DatasetError(
            f'{out} is not empty, and no import of the same sequences was begun there. Choose an '
            'empty or a new folder.'
        )
    write_atomically(path, noted)


def _sequences(directory):
    if (directory / 'camera').is_dir():
        return [directory]
    found = sorted(path.parent for path in directory.glob('*/camera') if path.is_dir())
    if not found:
        raise DatasetError(
            f'{directory} is no PandaSet sequence and holds none; expected camera/, lidar/ and '
            'annotations/ in it, or numbered folders with them.'
        )
    return found


def scene_name(folder):
    """Name of a sequence's scene, `pandaset-002` of a folder 002 or pandaset_002."""
    return f'pandaset-{folder.resolve().name.removeprefix("pandaset").lstrip("-_") or "0"}'


class _Sequence:
    """One drive being imported."""

    def __init__(self, folder, out):
        self.folder, self.out, self.name = folder, out, scene_name(folder)
        self.stamps_us = microseconds(folder / 'lidar' / 'timestamps.json', folder)
        poses = poses_of(folder / 'lidar' / 'poses.json', folder)
        if len(poses) != len(self.stamps_us):
            raise DatasetError(
                f'{folder / "lidar"}: {len(poses)} poses and {len(self.stamps_us)} timestamps; '
                'expected as many.'
            )
        body_from_ego = invert_rigid(EGO_FROM_BODY)
        self.poses = poses @ body_from_ego
        self.rows = {table: [] for table in PER_SCENE}

    def token(self, *parts):
        """A token of this scene."""
        return token('pandaset', self.name, *parts)

    def pose_at(self, stamp_us):
        """world_from_ego (4, 4), between the lidar's poses."""
        return pose_at(self.stamps_us * 1000, self.poses, int(stamp_us) * 1000)

    def scene(self):
        """{'rows': tables, 'captions': entries by annotation token}."""
        samples = range(0, len(self.stamps_us), FRAMES_PER_SAMPLE)
        self._scene_rows(samples)
        for camera, name in CAMERAS.items():
            self._camera(camera, self.folder / 'camera' / f'{name}_camera')
        self._lidar(samples)
        tracks, captions = {}, {}
        frames = [self._cuboids(frame) for frame in range(len(self.stamps_us))]
        for number, frame in enumerate(samples):
            self._annotate(number, frame, frames, tracks, captions)
        for track, (category, chain) in sorted(tracks.items()):
            self._instance(track, category, chain)
        return {'rows': self.rows, 'captions': captions}

    def _scene_rows(self, samples):
        tokens = [self.token('sample', number) for number in range(len(samples))]
        self.rows['log'].append(
            {
                'token': self.token('log'),
                'logfile': self.name,
                'vehicle': 'pandaset',
                'date_captured': '',
                'location': 'pandaset',
            }
        )
        self.rows['map'].append(
            {
                'token': self.token('map'),
                'log_tokens': [self.token('log')],
                'category': 'semantic_prior',
                'filename': 'maps/none.png',
            }
        )
        self.rows['scene'].append(
            {
                'token': self.token('scene'),
                'log_token': self.token('log'),
                'nbr_samples': len(tokens),
                'first_sample_token': tokens[0],
                'last_sample_token': tokens[-1],
                'name': self.name,
                'description': 'PandaSet',
            }
        )
        for number, frame in enumerate(samples):
            self.rows['sample'].append(
                {
                    'token': tokens[number],
                    'timestamp': int(self.stamps_us[frame]),
                    'prev': tokens[number - 1] if number else '',
                    'next': tokens[number + 1] if number + 1 < len(tokens) else '',
                    'scene_token': self.token('scene'),
                }
            )

    def _camera(self, camera, folder):
        channel = nuscenes_channel(camera)
        stamps = microseconds(folder / 'timestamps.json', self.folder)
        world_from_camera = poses_of(folder / 'poses.json', self.folder)
        intrinsics = intrinsics_of(folder / 'intrinsics.json', self.folder)
        ego_from_camera = self._mount(folder, stamps, world_from_camera)
        self._sensor(channel, ego_from_camera, intrinsics)
        shots = []
        for frame, stamp in enumerate(stamps):
            source = inside(self.folder, folder / f'{frame:02d}.jpg')
            picture = cv2.imread(str(source))
            if picture is None:
                raise DatasetError(f'{source} is no picture.')
            kind = 'sweeps' if frame % FRAMES_PER_SAMPLE else 'samples'
            target = f'{kind}/{channel}/{self.name}__{channel}__{stamp}.jpg'
            (self.out / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, self.out / target)
            # Before the lidar's first pose only the camera knows where it was.
            pose = (
                self.pose_at(stamp)
                if stamp >= self.stamps_us[0]
                else world_from_camera[frame] @ invert_rigid(ego_from_camera)
            )
            shots.append((frame, int(stamp), target, pose, picture.shape[1::-1]))
        self._shots(channel, shots)

    def _mount(self, folder, stamps, world_from_camera):
        """ego_from_camera (4, 4): the mean over the drive; its scatter is millimetres."""
        during = [k for k, stamp in enumerate(stamps) if stamp >= self.stamps_us[0]]
        if len(world_from_camera) != len(stamps) or not during:
            raise DatasetError(
                f'{folder}: {len(world_from_camera)} poses, {len(stamps)} timestamps, of which '
                f"{len(during)} after the lidar's first; expected a pose for each of the drive."
            )
        mounts = np.array(
            [invert_rigid(self.pose_at(stamps[k])) @ world_from_camera[k] for k in during]
        )
        left, _, right = np.linalg.svd(mounts[:, :3, :3].mean(0))
        return rigid(left @ right, mounts[:, :3, 3].mean(0))

    def _lidar(self, samples):
        self._sensor('LIDAR_TOP', np.eye(4), [])
        shots = [
            (
                frame,
                int(self.stamps_us[frame]),
                f'samples/LIDAR_TOP/{self.name}__LIDAR_TOP__{self.stamps_us[frame]}.pcd.bin',
                self.poses[frame],
                (0, 0),
            )
            for frame in samples
        ]
        self._shots('LIDAR_TOP', shots)

    def _sensor(self, channel, ego_from_sensor, intrinsics):
        self.rows['calibrated_sensor'].append(
            {
                'token': self.token('calibrated', channel),
                'sensor_token': token('sensor', channel),
                **pose_fields(ego_from_sensor),
                'camera_intrinsic': intrinsics,
            }
        )

    def _shots(self, channel, shots):
        tokens = [self.token(channel, stamp) for _, stamp, *_ in shots]
        last = (len(self.stamps_us) - 1) // FRAMES_PER_SAMPLE
        for k, (frame, stamp, filename, pose, (width, height)) in enumerate(shots):
            self.rows['ego_pose'].append(
                {'token': tokens[k], 'timestamp': stamp, **pose_fields(pose)}
            )
            sample = min(-(-frame // FRAMES_PER_SAMPLE), last)
            self.rows['sample_data'].append(
                {
                    'token': tokens[k],
                    'sample_token': self.token('sample', sample),
                    'ego_pose_token': tokens[k],
                    'calibrated_sensor_token': self.token('calibrated', channel),
                    'timestamp': stamp,
                    'fileformat': 'jpg' if width else 'pcd',
                    'is_key_frame': frame % FRAMES_PER_SAMPLE == 0,
                    'height': height,
                    'width': width,
                    'filename': filename,
                    'prev': tokens[k - 1] if k else '',
                    'next': tokens[k + 1] if k + 1 < len(tokens) else '',
                }
            )

    def _cuboids(self, frame):
        """track -> Cuboid of one frame."""
        return cuboids_of(self.folder / 'annotations' / 'cuboids', frame, self.folder)

    def _annotate(self, number, frame, frames, tracks, captions):
        ego = level_pose(self.poses[frame])
        level_from_world = invert_rigid(ego)
        cuboids = frames[frame]
        places = {
            track: transform(level_from_world, cuboid.world_from_box[:3, 3][None])[0]
            for track, cuboid in cuboids.items()
        }
        things = {
            track: grammar.thing_of(cuboid.category, '', cuboid.rider)
            for track, cuboid in cuboids.items()
        }
        for track, cuboid in cuboids.items():
            annotation = self.token('annotation', track, number)
            self._annotation(annotation, number, track, cuboid)
            row = self.rows['sample_annotation'][-1]
            tracks.setdefault(track, (cuboid.category, []))[1].append(row)
            velocity = level_from_world[:2, :2] @ self._velocity(track, frame, frames)
            if not np.isfinite(velocity).all():
                continue
            xy = places[track][:2]
            others = [(things[k], tuple(places[k][:2])) for k in cuboids if k != track]
            facts = grammar.Facts(
                things[track],
                int(round(float(np.hypot(*xy)))),
                grammar.sector_of(*xy),
                grammar.motion_of(float(np.hypot(*velocity)), cuboid.attribute, False),
                '',
                grammar.relation_of(xy, others),
            )
            captions[annotation] = grammar.tod3cap_entry(
                facts,
                sample_token=self.token('sample', number),
                scene_name=self.name,
                annotation_token=annotation,
                cam_file='',
                rectangle=(0.0, 0.0, 0.0, 0.0),
                size_lwh=cuboid.size,
                xy=xy,
                velocity=velocity,
            )

    def _velocity(self, track, frame, frames):
        """(2,) m/s in the world, between the frames beside this one; NaN where it stands alone."""
        known = [k for k in (frame - 1, frame, frame + 1) if 0 <= k < len(frames)]
        known = [k for k in known if track in frames[k]]
        if len(known) < 2:
            return np.full(2, np.nan)
        first, last = known[0], known[-1]
        moved = frames[last][track].world_from_box - frames[first][track].world_from_box
        return moved[:2, 3] / ((self.stamps_us[last] - self.stamps_us[first]) / 1e6)

    def _annotation(self, name, number, track, cuboid):
        length, width, height = cuboid.size
        attribute = cuboid.attribute
        self.rows['sample_annotation'].append(
            {
                'token': name,
                'sample_token': self.token('sample', number),
                'instance_token': self.token('instance', track),
                'visibility_token': '',
                'attribute_tokens': [token('attribute', attribute)] if attribute else [],
                **pose_fields(cuboid.world_from_box),
                'size': [width, length, height],
                'prev': '',
                'next': '',
                'num_lidar_pts': cuboid.lidar_points,
                'num_radar_pts': 0,
            }
        )

    def _instance(self, track, category, chain):
        for a, b in zip(chain, chain[1:]):
            a['next'], b['prev'] = b['token'], a['token']
        self.rows['instance'].append(
            {
                'token': self.token('instance', track),
                'category_token': token('category', category),
                'nbr_annotations': len(chain),
                'first_annotation_token': chain[0]['token'],
                'last_annotation_token': chain[-1]['token'],
            }
        )
