"""What is fuzzed: every reader of something that comes from elsewhere, with good inputs for it.

Those of the vehicle side are here; `training_targets.py` has those of mta_training, where torch is
installed.
"""

from functools import partial
import hashlib
from importlib.util import find_spec
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import cv2
from mutations import mutated_bytes, mutated_json, mutated_yaml
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from run import Target
import yaml

from mta_perception.bags.bag_files import BagError
from mta_perception.bags.faults import read_faults
from mta_perception.bags.faulty_contents import FaultsError
from mta_perception.bags.rescue import rescue
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.bags.typestore import message, time_message, typestore
from mta_perception.coded_images import compressed_encoding, declared_mosaic
from mta_perception.config import SyncConfig
from mta_perception.contract import BASE_FRAME, CAMERAS, optical_frame
from mta_perception.foreign_text import printable, shown
from mta_perception.frames import CameraCalibration, CameraImage
from mta_perception.geometry import rigid_from_quaternion
from mta_perception.lens import lens_of
from mta_perception.pipeline.calibrations import Rig
from mta_perception.pipeline.camera_geometry import camera_geometry
from mta_perception.pipeline.camera_sync import CameraSync
from mta_perception.pipeline.ego_motion import EgoMotion
from mta_perception.pipeline.images import ModelImageReader, plan_for
from mta_perception.pipeline.raw_images import raw_pixels
from mta_perception.plain_yaml import YamlError
from mta_perception.reasons import Refused
from mta_perception.runtime.manifest import Manifest, ManifestError

SPEC = SimpleNamespace(width=112, height=64, scale=0.28)
WIDTH, HEIGHT = 320, 180
START = 1_500_000_000_000_000_000


def all_targets(folder):
    """Every Target; folder: for good inputs that are files."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [*_images(), *_messages(), *_files(folder)]
    if find_spec('torch') and find_spec('pydantic'):
        from training_targets import training_targets

        targets += training_targets(folder)
    return targets


# -- images


def _images():
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8), (WIDTH, HEIGHT))
    coded = {
        'jpeg': [
            cv2.imencode('.jpg', picture)[1],
            cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1],
        ],
        'png': [
            cv2.imencode('.png', picture)[1],
            cv2.imencode('.png', picture[..., 0].astype(np.uint16) << 6)[1],
        ],
    }
    for encoding, seeds in coded.items():
        yield Target(
            encoding,
            (Refused,),
            [one.tobytes() for one in seeds],
            mutated_bytes,
            partial(_read_image, encoding),
            3.0,
        )
    names = ['bgr8', 'mono16', 'bayer_rggb8', 'nv12', 'yuv422', '8UC3', 'rgba16', 'i420']
    raw = [
        {
            'width': 32,
            'height': 18,
            'step': 0,
            'encoding': name,
            'is_bigendian': 0,
            'length': 32 * 18 * 8,
        }
        for name in names
    ]
    yield Target(
        'raw image', (Refused,), [_dumped(one) for one in raw], mutated_json, _read_raw, 2.0
    )


def _dumped(value):
    return json.dumps(value).encode()


def _read_image(encoding, data, folder):
    # The node's own order: the bytes say what they are, whatever `format` says.
    kind = compressed_encoding(data, encoding)
    declared_mosaic(encoding)
    out = np.zeros((SPEC.height, SPEC.width, 3), np.uint8)
    image = CameraImage('cam_front', START, data, kind)
    ModelImageReader(plan_for(SPEC, WIDTH, HEIGHT)).read(image, out)


def _read_raw(data, folder):
    """sensor_msgs/Image has numbers of their types; what they say may be anything."""
    fields = _as_message(
        json.loads(data.decode('utf-8', 'replace')) if _is_json(data) else {},
        {'width': 0, 'height': 0, 'step': 0, 'is_bigendian': 0, 'length': 0, 'encoding': 'bgr8'},
    )
    content = np.zeros(min(fields.length, 200_000), np.uint8)
    pixels = raw_pixels(
        content, fields.width, fields.height, fields.step, fields.encoding, fields.is_bigendian
    )
    out = np.zeros((SPEC.height, SPEC.width, 3), np.uint8)
    reader = ModelImageReader(plan_for(SPEC, fields.width, fields.height))
    reader.read(CameraImage('cam_front', START, pixels, fields.encoding), out)


def _is_json(data):
    try:
        return isinstance(json.loads(data.decode('utf-8', 'replace')), dict)
    except ValueError:
        return False


def _as_message(values, defaults):
    """Values as a ROS message can hold them: DDS delivers no other types."""
    held = {}
    for name, default in defaults.items():
        value = values.get(name, default)
        if isinstance(default, str):
            held[name] = value if isinstance(value, str) else default
        elif isinstance(default, int):
            held[name] = _whole(value, 2**32) if not isinstance(value, str) else default
        else:
            held[name] = _floats(value, len(default))
    return SimpleNamespace(**held)


def _floats(value, count):
    flat = value if isinstance(value, list) else [value]
    numbers = [_float(one) for one in flat]
    return [*numbers, *[0.0] * count][: max(count, 0)] if count else numbers[:64]


def _float(value):
    if not isinstance(value, (int, float)):
        return 0.0
    return float(value) if abs(value) < 1e308 or value != value else math.copysign(math.inf, value)


# -- messages


def _messages():
    info = {
        'width': WIDTH,
        'height': HEIGHT,
        'distortion_model': 'plumb_bob',
        'd': [0.1, -0.05, 0.0, 0.0, 0.0],
        'k': [200.0, 0.0, 160.0, 0.0, 200.0, 90.0, 0.0, 0.0, 1.0],
        'p': [200.0, 0.0, 160.0, 0.0, 0.0, 200.0, 90.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        'binning_x': 0,
        'binning_y': 0,
        'roi': [0, 0, 0, 0],
    }
    infos = [info, {**info, 'distortion_model': 'equidistant', 'd': [0.1, 0.0, 0.0, 0.0]}]
    yield Target(
        'camera_info', (Refused,), [_dumped(one) for one in infos], mutated_json, _read_info, 3.0
    )
    poses = [[k * 20_000_000, [0.1 * k, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]] for k in range(12)]
    yield Target('odometry', (), [_dumped(poses)], mutated_json, _read_poses, 3.0)
    links = [
        [BASE_FRAME, optical_frame(one), [1.0, 0.0, 1.5], [-0.5, 0.5, -0.5, 0.5]]
        for one in CAMERAS
    ]
    yield Target('transforms', (), [_dumped(links)], mutated_json, _read_links, 2.0)
    rounds = [[camera, k * 100_000_000, k * 100 + 5] for k in range(8) for camera in CAMERAS]
    yield Target('synchroniser', (), [_dumped(rounds)], mutated_json, _read_rounds, 2.0)
    texts = ['where is the bus that is turning?', 'Fußgänger 歩行者', '\x1b[2J\x07\r\n']
    yield Target('text', (), [text.encode() for text in texts], mutated_bytes, _read_text, 1.0)


def _read_info(data, folder):
    values = json.loads(data.decode('utf-8', 'replace')) if _is_json(data) else {}
    defaults = {
        'width': WIDTH,
        'height': HEIGHT,
        'distortion_model': 'plumb_bob',
        'd': [],
        'k': [0.0] * 9,
        'p': [0.0] * 12,
        'binning_x': 0,
        'binning_y': 0,
    }
    info = _as_message(values, defaults)
    corner = [abs(int(one)) % 2**32 for one in np.nan_to_num(_floats(values.get('roi'), 4))]
    info.roi = SimpleNamespace(
        x_offset=corner[0], y_offset=corner[1], width=corner[2], height=corner[3], do_rectify=False
    )
    for rectified in (False, True):
        lens = lens_of(info, rectified)
        calibration = CameraCalibration(
            lens.intrinsics, lens.width, lens.height, np.eye(4), lens.distortion, lens.sensor
        )
        camera_geometry(calibration, SPEC)


def _rows(data, width):
    """Rows of a mutated JSON text, as long as they should be."""
    try:
        rows = json.loads(data.decode('utf-8', 'replace'))
    except ValueError:
        return []
    rows = rows if isinstance(rows, list) else [rows]
    return [row for row in rows if isinstance(row, list) and len(row) == width][:60]


def _whole(value, most=2**63):
    numeric = isinstance(value, (int, float)) and abs(value) < math.inf
    return int(value) % most if numeric else 0


def _read_poses(data, folder):
    """Odometry of any stamps and numbers; then every answer is a pose or refused by name."""
    ego_motion = EgoMotion()
    for stamp, xyz, xyzw in _rows(data, 3):
        at_ns = START + _whole(stamp, 2**62)
        ego_motion.add_quaternion(at_ns, _floats(xyz, 3), _floats(xyzw, 4))
        try:
            found = ego_motion.world_from_ego(at_ns)
        except Refused:
            continue
        if not np.isfinite(found).all():
            raise AssertionError(f'the pose at {at_ns} is {found}')


def _read_links(data, folder):
    rig = Rig(BASE_FRAME)
    for camera in CAMERAS:
        rig.set_frame(camera, optical_frame(camera))
    for parent, child, xyz, xyzw in _rows(data, 4):
        names = [one if isinstance(one, str) else '' for one in (parent, child)]
        try:
            pose = rigid_from_quaternion(_floats(xyzw, 4), _floats(xyz, 3))
            rig.set_transform(*names, pose, static=True)
        except (Refused, ValueError):  # conversions.py makes a Refused of the latter
            continue
    rig.tree.lookup(BASE_FRAME, optical_frame(CAMERAS[0]))


def _read_rounds(data, folder):
    """Images with any stamps at any times: no set twice, none of mixed stamps."""
    sync, now_ns, stamps = CameraSync(CAMERAS, SyncConfig()), START, []
    for camera, stamp, wait_ms in _rows(data, 3):
        now_ns += _whole(wait_ms, 2**40) + 2  # it never runs back: `poll` is a moment later
        name = camera if camera in CAMERAS else CAMERAS[0]
        image = CameraImage(name, START + _whole(stamp, 2**62), b'', 'jpeg')
        for frames in itertools.chain(sync.add(image, now_ns), sync.poll(now_ns + 1)):
            stamps.append(frames.stamp_ns)
    # After a jump of the clock stamps come again, but never one after itself.
    if any(one == other for one, other in zip(stamps, stamps[1:])):
        raise AssertionError(f'a set came twice: {stamps}')


def _read_text(data, folder):
    text = data.decode('utf-8', 'surrogateescape')
    for words in (printable(text), shown(text)):
        if any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in words):
            raise AssertionError(f'control characters are left in {words!r}')
        words.encode()


# -- files


def _files(folder):
    yield Target('manifest', (ManifestError,), [_manifest()], mutated_yaml, _read_manifest, 1.0)
    faults = 'about: x\nseed: 1\nfaults:\n' + ''.join(
        f"  - {{topic: '*/odom', do: {do}, from: 1.0, to: 2.0, share: 0.5, field: x, value: 1}}\n"
        for do in ('drop', 'delay', 'set', 'thin')
    )
    yield Target(
        'faults', (FaultsError, YamlError), [faults.encode()], mutated_yaml, _read_faults, 2.0
    )
    bag = _bag(folder / 'bag')
    metadata = (bag / 'metadata.yaml').read_bytes()
    storage = next(bag.glob('*.mcap')).read_bytes()
    yield Target(
        'metadata.yaml',
        (BagError,),
        [metadata],
        mutated_yaml,
        partial(_read_bag, {next(bag.glob('*.mcap')).name: storage}, 'metadata.yaml'),
        1.0,
    )
    yield Target(
        'mcap', (BagError,), [storage], mutated_bytes, partial(_read_bag, {}, 'bag.mcap'), 1.0
    )
    rows = _bag(folder / 'sqlite', StoragePlugin.SQLITE3)
    yield Target(
        'db3',
        (BagError,),
        [next(rows.glob('*.db3')).read_bytes()],
        mutated_bytes,
        partial(_read_bag, {}, 'bag.db3'),
        0.5,
    )
    yield Target('rescue', (BagError,), [storage], mutated_bytes, _rescue, 0.5)


MODEL_FILES = ('detector.onnx', 'qformer.onnx', 'language.onnx', 'tokenizer.json')


def _manifest():
    """The shipped one, with the hashes of files that hold their own names."""
    shipped = Path(__file__).resolve().parents[1] / 'models' / 'nano' / 'manifest.yaml'
    content = yaml.safe_load(shipped.read_text())
    content['files'] = {
        name: hashlib.sha256(name.encode()).hexdigest() for name in content['files']
    }
    return yaml.safe_dump(content).encode()


def _read_manifest(data, folder):
    for name in MODEL_FILES:
        (folder / name).write_bytes(name.encode())
    (folder / 'manifest.yaml').write_bytes(data)
    Manifest.load(folder)


def _read_faults(data, folder):
    (folder / 'faults.yaml').write_bytes(data)
    read_faults(folder / 'faults.yaml')


def _bag(path, storage=StoragePlugin.MCAP):
    """A bag of a few small messages."""
    store = typestore()
    header = message('std_msgs/msg/Header', stamp=time_message(START), frame_id='cam_front')
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, kind, fields in (
            (
                '/cam_front/image_raw/compressed',
                'sensor_msgs/msg/CompressedImage',
                _picture(header),
            ),
            ('/nuscenes/sample', 'std_msgs/msg/String', {'data': '{"scene": "x"}'}),
        ):
            connection = writer.add_connection(topic, kind, typestore=store)
            for number in range(3):
                data = store.serialize_cdr(message(kind, **fields), kind)
                writer.write(connection, START + number, data)
    return path


def _picture(header):
    data = cv2.imencode('.png', np.zeros((4, 4, 3), np.uint8))[1].ravel()
    return {'header': header, 'format': 'png', 'data': data}


def _read_bag(others, name, data, folder):
    for other, content in others.items():
        (folder / other).write_bytes(content)
    (folder / name).write_bytes(data)
    bag = SceneBag(folder if name == 'metadata.yaml' else folder / name)
    for _ in itertools.islice(bag.messages(), 100):
        pass


def _rescue(data, folder):
    (folder / 'bag.mcap').write_bytes(data)
    rescue(folder / 'bag.mcap', folder / 'rescued')
