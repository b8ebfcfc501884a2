"""What putting six images together costs, an image, on patterns of real rigs; beside it
message_filters' algorithms: the Python one where it is installed, and our plain re-statement of
the C++ one (approximate_time.py)."""

from collections import deque
import json
import os
from pathlib import Path
import time
from types import SimpleNamespace

from approximate_time import ApproximateTime
import numpy as np
from report import Row, quick, report

from mta_perception.config import SyncConfig
from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraImage
from mta_perception.pipeline.camera_sync import CameraSync

START = 1_532_402_927_000_000_000
FIRED_MS = dict(zip(CAMERAS, (-35, -28, -43, -10, 0, -20)))  # nuScenes' round, of 83 ms
ROUNDS = 600
LATE_NS, SLOP_NS = 20_000_000, 80_000_000
DEAD = CAMERAS[0]
PANDASET = Path(os.environ.get('MTA_SHARED') or Path(__file__).parents[2] / 'shared') / (
    'data/pandaset_002/camera'
)
# Folders of PandaSet -> our cameras
PANDASET_CAMERAS = dict(
    zip(
        CAMERAS,
        (
            'front_camera',
            'front_right_camera',
            'front_left_camera',
            'back_camera',
            'left_camera',
            'right_camera',
        ),
    )
)


def stream(hz=12.0, jitter_ms=0.0, lost=0.0, dead=(), late=0.0, rounds=ROUNDS, seed=0):
    """[(stamp, camera)] of nuScenes' rig in the order in which they come.

    late: share of the images that come 0.1 s, more than a round, after they should
    """
    rng, events = np.random.default_rng(seed), []
    for number in range(rounds):
        for camera, at_ms in FIRED_MS.items():
            if camera in dead or rng.random() < lost:
                continue
            off_ms = at_ms + rng.normal(0.0, jitter_ms) if jitter_ms else at_ms
            stamp_ns = START + round(number * 1e9 / hz + off_ms * 1e6)
            comes_ns = stamp_ns + 100_000_000 * (rng.random() < late)
            events.append((comes_ns, stamp_ns, camera))
    return [(stamp_ns, camera) for _, stamp_ns, camera in sorted(events)]


def recorded_stream(folder, rounds=ROUNDS):
    """The stamps of a recorded PandaSet drive, said again and again; None without it."""
    files = {
        camera: folder / name / 'timestamps.json' for camera, name in PANDASET_CAMERAS.items()
    }
    if not all(file.is_file() for file in files.values()):
        return None
    stamps = {camera: json.loads(file.read_text()) for camera, file in files.items()}
    count = min(map(len, stamps.values()))
    firsts = [values[0] for values in stamps.values()]
    period_s = (max(v[count - 1] for v in stamps.values()) - max(firsts)) / (count - 1)
    events = []
    for number in range(rounds):
        again, index = divmod(number, count)
        for camera, values in stamps.items():
            stamp_s = values[index] + again * count * period_s
            events.append((START + round((stamp_s - min(firsts)) * 1e9), camera))
    return sorted(events)


def ours(events):
    """(microseconds an image, sets)."""
    sync, count = CameraSync(CAMERAS, SyncConfig()), 0
    now_ns = 0
    began = time.process_time()
    for stamp_ns, camera in events:
        now_ns = max(now_ns, stamp_ns)
        image = CameraImage(camera, stamp_ns, b'', 'jpeg')
        count += len(sync.add(image, now_ns + LATE_NS))
    return 1e6 * (time.process_time() - began) / len(events), count


def restated(events):
    """The same through approximate_time.ApproximateTime."""
    sync, count = ApproximateTime(len(CAMERAS), SLOP_NS), 0
    places = {camera: index for index, camera in enumerate(CAMERAS)}
    began = time.process_time()
    for stamp_ns, camera in events:
        count += len(sync.add(places[camera], stamp_ns))
    return 1e6 * (time.process_time() - began) / len(events), count


def installed(events):
    """The same through message_filters.ApproximateTimeSynchronizer; ImportError without it."""
    from builtin_interfaces.msg import Time
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter

    filters = {camera: SimpleFilter() for camera in CAMERAS}
    sets = deque()
    sync = ApproximateTimeSynchronizer(list(filters.values()), 10, SLOP_NS / 1e9)
    sync.registerCallback(lambda *members: sets.append(1))
    messages = []
    for stamp_ns, camera in events:
        sec, nanosec = divmod(stamp_ns, 10**9)
        header = SimpleNamespace(stamp=Time(sec=sec, nanosec=nanosec))
        messages.append((camera, SimpleNamespace(header=header)))
    began = time.process_time()
    for camera, message in messages:
        filters[camera].signalMessage(message)
    return 1e6 * (time.process_time() - began) / len(events), len(sets)


def cases(rounds=ROUNDS):
    """Name -> events."""
    found = {
        'healthy': stream(rounds=rounds),
        '5 % lost': stream(lost=0.05, rounds=rounds),
        'a camera dead': stream(dead=(DEAD,), rounds=rounds),
        '3 ms jitter': stream(jitter_ms=3.0, rounds=rounds),
        '5 % late by 0.1 s': stream(late=0.05, rounds=rounds),
    }
    recorded = recorded_stream(PANDASET, rounds)
    if recorded is None:
        print(f'no recorded stamps of PandaSet: {PANDASET} is not there')
    else:
        found["PandaSet's stamps"] = recorded
    return found


def tables(rounds=ROUNDS, repeats=5):
    """(rows of microseconds an image, rows of sets per round)."""
    algorithms = {'restated ApproximateTime': restated, 'ours': ours}
    try:
        installed(stream(rounds=5))
        algorithms['message_filters'] = installed
    except ImportError as error:
        print(f'message_filters is not installed here: {error}')
    costs, sets = [], []
    for case, events in cases(rounds).items():
        for name, run in algorithms.items():
            runs = [run(events) for _ in range(repeats)]
            costs.append(Row(f'{case}: {name}', [cost for cost, _ in runs]))
            sets.append(Row(f'{case}: {name}', [runs[0][1] / rounds]))
    return costs, sets


def main():
    costs, sets = tables(quick(300, ROUNDS), quick(3, 7))
    report('Synchroniser, CPU time an image', costs, unit='us')
    report('Synchroniser, sets of a round', sets, unit='sets')


if __name__ == '__main__':
    main()
