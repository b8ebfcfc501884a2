"""Streams of images as cameras send them, played into a CameraSync; for the tests of it."""

import random

from mta_perception.config import SyncConfig
from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraImage
from mta_perception.pipeline.camera_sync import CameraSync
from mta_perception.reasons import Code

MS = 1_000_000
START = 1_532_402_927_000 * MS
# When nuScenes' cameras fire, relative to the lidar stamp [ms].
NUSCENES_MS = {
    'cam_front_left': -43.0,
    'cam_front': -35.0,
    'cam_front_right': -28.0,
    'cam_back_right': -20.0,
    'cam_back': -10.0,
    'cam_back_left': -0.5,
}
TOGETHER_MS = dict.fromkeys(CAMERAS, 0.0)


class Drive:
    """A stream of images, played into a CameraSync with latency; remembers each image's round."""

    def __init__(self, sync=None):
        self.sync = sync or CameraSync(CAMERAS, SyncConfig())
        self.rounds = {}  # (camera, stamp) -> round
        self.sets = []  # (receive time, FrameSet)
        self.now_ns = 10**12

    def images(
        self,
        count,
        gaps_ms=(1000 / 12,),
        offsets_ms=None,
        jitter_ms=0.3,
        start=START,
        first_round=0,
        seed=0,
    ):
        """[CameraImage] of `count` rounds, by stamp; the pauses between rounds repeat gaps_ms."""
        rng, at, result = random.Random(seed), 0.0, []
        for index in range(count):
            for camera, offset in (offsets_ms or NUSCENES_MS).items():
                stamp = start + int((at + offset + rng.uniform(-jitter_ms, jitter_ms)) * MS)
                self.rounds[camera, stamp] = first_round + index
                result.append(CameraImage(camera, stamp, b'', 'jpeg'))
            at += gaps_ms[index % len(gaps_ms)]
        return sorted(result, key=lambda image: image.stamp_ns)

    def play(self, images, rate=1.0, latency_ms=lambda image: 3.0):
        """Send images at `rate` times real time, polling every 20 ms, then let half a second
        pass."""
        if not images:
            return self
        first = images[0].stamp_ns
        arrivals = sorted(
            ((image.stamp_ns - first) / rate + latency_ms(image) * MS, index)
            for index, image in enumerate(images)
        )
        begin = self.now_ns
        for after, index in arrivals:
            self.wait_until(begin + int(after))
            self.take(self.sync.add(images[index], self.now_ns))
        self.wait_until(self.now_ns + 500 * MS)
        return self

    def wait_until(self, now_ns):
        while self.now_ns + 20 * MS < now_ns:
            self.now_ns += 20 * MS
            self.take(self.sync.poll(self.now_ns))
        self.now_ns = max(now_ns, self.now_ns)

    def take(self, sets):
        self.sets += [(self.now_ns, frames) for frames in sets]

    def set_rounds(self):
        """For each set the rounds its images come from."""
        return [
            {self.rounds[camera, image.stamp_ns] for camera, image in frames.images.items()}
            for _, frames in self.sets
        ]

    def whole(self):
        """Rounds that came out as one set of six."""
        return [
            rounds.pop()
            for rounds, (_, frames) in zip(self.set_rounds(), self.sets)
            if len(frames.images) == 6 and len(rounds) == 1
        ]


DEFAULT_SPREAD_S = SyncConfig().max_spread_s


def check_sets(drive, max_spread_s=DEFAULT_SPREAD_S):
    """What holds for every set, whatever came."""
    used = set()
    for _, frames in drive.sets:
        assert frames.images
        assert set(frames.images) | set(frames.missing) == set(CAMERAS)
        assert not set(frames.images) & set(frames.missing)
        assert all(reason.code in Code for reason in frames.missing.values())
        stamps = [image.stamp_ns for image in frames.images.values()]
        assert frames.stamp_ns == max(stamps)
        assert max(stamps) - min(stamps) <= max_spread_s * 1e9
        for camera, image in frames.images.items():
            assert image.camera == camera
            assert id(image) not in used, 'an image was used twice'
            used.add(id(image))
