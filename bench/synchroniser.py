"""What putting six images together costs, an image; message_filters beside it if it is there."""

from collections import deque
import time
from types import SimpleNamespace

import numpy as np
from report import Row, report

from mta_perception.config import SyncConfig
from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraImage
from mta_perception.pipeline.camera_sync import CameraSync

START = 1_532_402_927_000_000_000
FIRED_MS = dict(zip(CAMERAS, (-35, -28, -43, -10, 0, -20)))  # nuScenes' round, of 83 ms
PANDASET_MS = dict(zip(CAMERAS, (0, 14, 68, 41, 54, 27)))  # PandaSet's, of 100 ms
ROUNDS, REPEATS, LATE_NS = 600, 5, 20_000_000


def stream(fired_ms, hz, jitter_ms=0.0, lost=0.0, dead=(), seed=0):
    """[(stamp, camera)] in the order in which they come."""
    rng, events = np.random.default_rng(seed), []
    for number in range(ROUNDS):
        for camera, at_ms in fired_ms.items():
            if camera in dead or rng.random() < lost:
                continue
            off_ms = at_ms + rng.normal(0.0, jitter_ms) if jitter_ms else at_ms
            events.append((START + round(number * 1e9 / hz + off_ms * 1e6), camera))
    return sorted(events)


def ours(events):
    """(microseconds an image, sets)."""
    sync, count = CameraSync(CAMERAS, SyncConfig()), 0
    began = time.process_time()
    for stamp_ns, camera in events:
        image = CameraImage(camera, stamp_ns, b'', 'jpeg')
        count += len(sync.add(image, stamp_ns + LATE_NS))
    return 1e6 * (time.process_time() - began) / len(events), count


def theirs(events):
    """The same through message_filters.ApproximateTimeSynchronizer."""
    from builtin_interfaces.msg import Time
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter

    filters = {camera: SimpleFilter() for camera in CAMERAS}
    sets = deque()
    sync = ApproximateTimeSynchronizer(list(filters.values()), 10, 0.06)
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


CASES = {
    'nuScenes, 12 Hz': stream(FIRED_MS, 12.0),
    'nuScenes, 5 % lost': stream(FIRED_MS, 12.0, lost=0.05),
    'nuScenes, a camera dead': stream(FIRED_MS, 12.0, dead=CAMERAS[:1]),
    'nuScenes, 3 ms jitter': stream(FIRED_MS, 12.0, jitter_ms=3.0),
    'PandaSet, 10 Hz': stream(PANDASET_MS, 10.0),
}


def main():
    rows, sets = [], []
    for name, run in (('ours', ours), ('message_filters', theirs)):
        for case, events in CASES.items():
            try:
                runs = [run(events) for _ in range(REPEATS)]
            except ImportError as error:
                print(f'{name}: {error}')
                break
            rows.append(Row(f'{name}: {case}', [cost for cost, _ in runs]))
            sets.append(f'{name}, {case}: {runs[0][1]} sets of {ROUNDS} rounds')
    report('Synchroniser, an image', rows, unit='us')
    print('\n'.join(sets))


if __name__ == '__main__':
    main()
