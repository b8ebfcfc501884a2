"""nuScenes' thirteen tables: fixed rows, and a whole dataset put together of the rows of scenes.

Sizes are w, l, h and quaternions w, x, y, z here, as nuScenes has them.
"""

from contextlib import ExitStack
import hashlib
import json

from mta_perception.atomic_files import whole
from mta_perception.contract import CAMERAS, nuscenes_channel
from mta_perception.geometry import quaternion_from_rigid

TABLES = (
    'category',
    'attribute',
    'visibility',
    'instance',
    'sensor',
    'calibrated_sensor',
    'ego_pose',
    'log',
    'scene',
    'sample',
    'sample_data',
    'sample_annotation',
    'map',
)
PER_SCENE = (
    'instance',
    'calibrated_sensor',
    'ego_pose',
    'log',
    'scene',
    'sample',
    'sample_data',
    'sample_annotation',
    'map',
)
ATTRIBUTES = (
    'vehicle.moving',
    'vehicle.stopped',
    'vehicle.parked',
    'cycle.with_rider',
    'cycle.without_rider',
    'pedestrian.sitting_lying_down',
    'pedestrian.standing',
    'pedestrian.moving',
)
CATEGORIES = (
    'human.pedestrian.adult',
    'human.pedestrian.child',
    'human.pedestrian.wheelchair',
    'human.pedestrian.stroller',
    'human.pedestrian.personal_mobility',
    'human.pedestrian.police_officer',
    'human.pedestrian.construction_worker',
    'animal',
    'vehicle.car',
    'vehicle.motorcycle',
    'vehicle.bicycle',
    'vehicle.bus.bendy',
    'vehicle.bus.rigid',
    'vehicle.truck',
    'vehicle.construction',
    'vehicle.emergency.ambulance',
    'vehicle.emergency.police',
    'vehicle.trailer',
    'movable_object.barrier',
    'movable_object.trafficcone',
    'movable_object.pushable_pullable',
    'movable_object.debris',
    'static_object.bicycle_rack',
)


def token(*parts):
    """32 hexadecimal digits that depend on nothing but the parts."""
    return hashlib.md5('/'.join(str(part) for part in parts).encode()).hexdigest()


def fixed_rows():
    """Tables that are the same in every dataset."""
    visibility = [
        {'token': str(k + 1), 'level': f'v{level}', 'description': f'visibility {level} %'}
        for k, level in enumerate(('0-40', '40-60', '60-80', '80-100'))
    ]
    channels = [(nuscenes_channel(camera), 'camera') for camera in CAMERAS] + [
        ('LIDAR_TOP', 'lidar')
    ]
    return {
        'category': [
            {'token': token('category', name), 'name': name, 'description': '', 'index': k}
            for k, name in enumerate(CATEGORIES)
        ],
        'attribute': [
            {'token': token('attribute', name), 'name': name, 'description': ''}
            for name in ATTRIBUTES
        ],
        'visibility': visibility,
        'sensor': [
            {'token': token('sensor', channel), 'channel': channel, 'modality': modality}
            for channel, modality in channels
        ],
    }


def pose_fields(target_from_source):
    """translation and rotation (w, x, y, z) of a (4, 4) pose."""
    x, y, z, w = quaternion_from_rigid(target_from_source).tolist()
    return {'translation': target_from_source[:3, 3].tolist(), 'rotation': [w, x, y, z]}


def dump(value):
    """JSON bytes, the same for the same value."""
    return json.dumps(value, separators=(',', ':')).encode()


def splits_of(names, prefix='synth'):
    """Custom splits for the devkit (1.2 and later): every fifth scene, from the fifth on, is held
    out for validation.  Of fewer than five scenes the last one is; a single scene is in both."""
    held_out = names[4::5] or names[-1:]
    training = [name for name in names if name not in held_out] or list(names)
    return {f'{prefix}_train': training, f'{prefix}_val': held_out, f'{prefix}_all': list(names)}


def assemble(out, version, parts, prefix='synth'):
    """Put the tables of all scenes together in `out`/`version`, which appears whole or not at all.

    parts   paths of the scenes' row files, in order; one is in memory at a time
    prefix  of the splits' names
    """
    captions = out / 'captions' / 'final_caption_bbox_token.json'
    captions.parent.mkdir(exist_ok=True)
    with whole(out / version, replace=True) as draft, whole(captions) as sentences:
        draft.mkdir()
        for table, rows in fixed_rows().items():
            (draft / f'{table}.json').write_bytes(dump(rows))
        names = _join(parts, draft, sentences)
        (draft / 'splits.json').write_bytes(dump(splits_of(names, prefix)))


def _join(parts, draft, sentences):
    """Write the rows of all scenes as tables in `draft`, their captions as `sentences`; returns
    the scenes' names."""
    names = []
    with ExitStack() as stack:
        files = {
            table: stack.enter_context(open(draft / f'{table}.json', 'wb')) for table in PER_SCENE
        }
        files['captions'] = stack.enter_context(open(sentences, 'wb'))
        for part in parts:
            content = json.loads(part.read_bytes())
            names.extend(scene['name'] for scene in content['rows']['scene'])
            for table, rows in {**content['rows'], 'captions': content['captions']}.items():
                inner = dump(rows)[1:-1]  # without the brackets
                if inner:
                    opening = b'{' if table == 'captions' else b'['
                    files[table].write((b',\n' if files[table].tell() else opening) + inner)
        for table, file in files.items():
            empty, closing = (b'{', b'}') if table == 'captions' else (b'[', b']')
            file.write(closing if file.tell() else empty + closing)
    return names
