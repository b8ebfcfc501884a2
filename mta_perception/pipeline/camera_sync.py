"""Images of several cameras put together to frame sets.

Made for cameras that fire one after the other (nuScenes: within 43 of 83 ms), and as good for
cameras that fire together: the trigger pattern is learnt from the stamps (trigger_pattern.py), so
that a set is one round of the rig and not whatever six images came last.  A set goes out as soon
as every camera that can still deliver has; it never waits longer than `max_wait_s`, and not at all
for a camera known to be dead.

Pure: no thread, no clock, no ROS.  Stamps are image time, `now_ns` is receive time, and the two
are never compared: a bag of 2018 may be played today at any rate.
"""

from collections import Counter, deque
from typing import NamedTuple

import numpy as np

from mta_perception.frames import CameraImage, FrameSet
from mta_perception.pipeline.trigger_pattern import learn_pattern
from mta_perception.reasons import Code, Reason

_WINDOW = 8  # images per camera that the pattern is learnt from
_MOST_PENDING = 16  # images per camera held back
_MOST_SUSPECTS = 4  # images per camera of another timeline held back
_REPEAT_NS = 100_000_000  # the same stamp again within this receive time: sent twice


class CameraStatus(NamedTuple):
    """One camera as the synchroniser saw it, for diagnostics."""

    images: int  # accepted since the start
    rate_hz: float  # by its stamps; 0.0 while unknown
    age_s: float  # receive time since its newest image; inf when none came
    alive: bool
    dropped: dict  # Code -> images


class _Received(NamedTuple):
    """An image and when it came, receive time [ns]."""

    image: CameraImage
    arrival_ns: int


class _Camera:
    """What is known of one camera."""

    def __init__(self):
        self.pending = []  # _Received, stamps ascending
        self.suspects = []  # _Received, of another timeline
        self.stamps = deque(maxlen=_WINDOW)  # accepted
        self.arrivals = deque(maxlen=_WINDOW)
        self.last_arrival_ns = None  # of any image, accepted or not
        self.images, self.dropped = 0, Counter()
        self.missed = 0  # rounds in a row that waited for it in vain
        self.off_by_s = 0.0  # of the newest suspect

    def clear(self):
        """Forget the timeline, keep the statistics."""
        self.pending.clear()
        self.suspects.clear()
        self.stamps.clear()
        self.arrivals.clear()


class CameraSync:
    """Images in, frame sets out.  One thread at a time."""

    def __init__(self, cameras, config):
        self.config = config
        self.sets = self.incomplete_sets = self.resets = 0
        self.dropped = Counter()  # Code -> images
        self.last_reset = None  # (now_ns, Reason)
        self._cameras = {name: _Camera() for name in cameras}
        self._pattern = None  # TriggerPattern
        self._last_set = {}  # camera -> stamp, of the set that went out last
        self._started_ns = self._now_ns = None

    def add(self, image, now_ns):
        """Take a CameraImage received at now_ns (any clock that does not run back) -> [FrameSet].

        The list is empty, or holds the sets that this image completed, oldest first.
        """
        if image.camera not in self._cameras:
            raise ValueError(
                f'image of camera {image.camera!r}, expected one of {list(self._cameras)}.'
            )
        self._advance(now_ns)
        self._cameras[image.camera].last_arrival_ns = now_ns
        for received in self._on_this_timeline(_Received(image, now_ns)):
            self._accept(received)
        return self._emit(now_ns)

    def poll(self, now_ns):
        """Let time pass, every 20 ms or so -> [FrameSet] whose wait is over."""
        self._advance(now_ns)
        return self._emit(now_ns)

    def reset(self, reason, now_ns):
        """Drop all that is pending, for a Reason.  The trigger pattern is kept: it is the rig's,
        not the drive's."""
        for name, camera in self._cameras.items():
            self._drop(name, Code.SYNC_RESET, len(camera.pending) + len(camera.suspects))
            camera.clear()
        self._last_set = {}
        self._started_ns = now_ns
        self.resets += 1
        self.last_reset = now_ns, reason

    def status(self, now_ns):
        """camera -> CameraStatus."""
        result = {}
        for name, camera in self._cameras.items():
            rate = 0.0
            if len(camera.stamps) > 1:
                rate = 1e9 * (len(camera.stamps) - 1) / (camera.stamps[-1] - camera.stamps[0])
            age = np.inf
            if camera.last_arrival_ns is not None:
                age = (now_ns - camera.last_arrival_ns) / 1e9
            alive = age * 1e9 < self._silence_ns(camera) and self._expected(camera, now_ns)
            result[name] = CameraStatus(camera.images, rate, age, alive, dict(camera.dropped))
        return result

    # -- one timeline

    def _advance(self, now_ns):
        if self._started_ns is None:
            self._started_ns = now_ns
        elif now_ns < self._now_ns:
            back_s = (self._now_ns - now_ns) / 1e9
            self.reset(Reason(Code.RECEIVE_CLOCK_RAN_BACK, f'by {back_s:.2f} s'), now_ns)
            for camera in self._cameras.values():
                camera.last_arrival_ns = None
        self._now_ns = now_ns

    def _on_this_timeline(self, received):
        """[_Received] to accept: none, this one, or after a jump all that led to it."""
        image, now_ns = received
        camera = self._cameras[image.camera]
        heads = [other.stamps[-1] for other in self._cameras.values() if other.stamps]
        if not heads:
            return [received]
        ahead_ns = image.stamp_ns - max(heads)
        newer = not camera.stamps or image.stamp_ns > camera.stamps[-1]
        if newer and abs(ahead_ns) <= self.config.jump_s * 1e9:
            self._drop(image.camera, Code.CLOCK_OFF, len(camera.suspects))
            camera.suspects.clear()
            return [received]
        if (
            camera.stamps
            and image.stamp_ns == camera.stamps[-1]
            and now_ns - camera.arrivals[-1] < _REPEAT_NS
        ):
            self._drop(image.camera, Code.DUPLICATE_IMAGE)
            return []
        camera.off_by_s = ahead_ns / 1e9
        camera.suspects.append(received)
        if len(camera.suspects) > _MOST_SUSPECTS:
            self._drop(image.camera, Code.CLOCK_OFF)
            camera.suspects.pop(0)
        return self._jump(image, ahead_ns, now_ns)

    def _jump(self, image, ahead_ns, now_ns):
        """Reset where most living cameras agree with `image` on another time, and give all that
        led to it; else nothing."""
        agreeing, living = [], 0
        for camera in self._cameras.values():
            recent = now_ns - self._silence_ns(camera)
            living += camera.last_arrival_ns is not None and camera.last_arrival_ns >= recent
            near = [
                suspect
                for suspect in camera.suspects
                if suspect.arrival_ns >= recent
                and abs(suspect.image.stamp_ns - image.stamp_ns) <= self.config.jump_s * 1e9
            ]
            if near:
                agreeing.append(near)
        if len(agreeing) <= living // 2:
            return []
        for camera in self._cameras.values():  # they are accepted below, not dropped
            camera.suspects.clear()
        code = Code.CLOCK_JUMPED_FORWARD if ahead_ns > 0 else Code.CLOCK_JUMPED_BACK
        by = f'image stamps of most cameras, by {abs(ahead_ns) / 1e9:.2f} s'
        self.reset(Reason(code, by), now_ns)
        return _increasing(
            sorted((one for near in agreeing for one in near), key=lambda one: one.arrival_ns)
        )

    def _accept(self, received):
        name, stamp_ns = received.image.camera, received.image.stamp_ns
        camera = self._cameras[name]
        camera.images += 1
        camera.stamps.append(stamp_ns)
        camera.arrivals.append(received.arrival_ns)
        camera.missed = 0
        if self._is_past(name, received.image):
            self._drop(name, Code.LATE if self._sets_pace(name) else Code.SURPLUS)
            return
        camera.pending.append(received)
        if len(camera.pending) > _MOST_PENDING:
            camera.pending.pop(0)
            self._drop(name, Code.SURPLUS)

    def _drop(self, name, code, count=1):
        if count:
            self._cameras[name].dropped[code] += count
            self.dropped[code] += count

    # -- rounds

    def _round(self, image):
        return self._pattern.round_ns(image.camera, image.stamp_ns)

    def _sets_pace(self, name):
        return (
            self._pattern is None
            or name not in self._pattern.offsets_ns
            or self._pattern.sets_pace(name)
        )

    def _tolerance(self):
        return self._pattern.tolerance_ns

    def _last_round(self):
        known = [
            self._pattern.round_ns(name, stamp)
            for name, stamp in self._last_set.items()
            if name in self._pattern.offsets_ns
        ]
        return float(np.median(known)) if known else -np.inf

    def _learn(self, now_ns, hurry=False):
        """Bring the pattern up to date with the cameras that deliver; in a `hurry` from what there
        is."""
        living = {
            name: list(camera.stamps)
            for name, camera in self._cameras.items()
            if camera.stamps and self._expected(camera, now_ns)
        }
        counts = sorted(len(stamps) for stamps in living.values())
        # Two pauses per camera, because rounds may be of two lengths; one more where not all show
        # them.
        if not counts or not (
            counts[0] >= (2 if hurry else 3) or counts[(len(counts) - 1) // 2] >= 4
        ):
            return
        first = self._pattern is None
        learnt = learn_pattern(living, self._pattern)
        if learnt is None:
            return
        self._pattern = learnt
        if first and not self._last_set:
            # A stream joined in the middle of a round: what came before the first whole one.
            start = min(self._cameras[learnt.leader].stamps)
            for name, camera in self._cameras.items():
                early = [
                    one
                    for one in camera.pending
                    if name in learnt.offsets_ns
                    and self._round(one.image) < start - learnt.tolerance_ns
                ]
                self._drop(name, Code.BEFORE_FIRST_SET, len(early))
                camera.pending = camera.pending[len(early) :]
        self._drop_past(Code.LATE)

    def _emit(self, now_ns):
        sets = []
        if self._pattern is None or any(
            camera.pending and name not in self._pattern.offsets_ns
            for name, camera in self._cameras.items()
        ):
            self._learn(now_ns)
        if self._pattern is None:
            return self._emit_unlearnt(now_ns)
        while True:
            members = self._oldest_round()
            if not members:
                return sets
            missing = {
                name: self._why_not_awaited(name, members, now_ns)
                for name in self._cameras
                if name not in members
            }
            if None in missing.values() or any(
                self._nearer_may_come(name, members, now_ns) for name in members
            ):
                return sets
            for name, reason in missing.items():
                self._cameras[name].missed += reason.code is Code.LATE
            sets.append(self._send(members, missing))
            self._learn(now_ns)

    def _emit_unlearnt(self, now_ns):
        """Before any camera delivered twice: whatever lies within the spread, after a pause."""
        waiting = [one for camera in self._cameras.values() for one in camera.pending]
        if not waiting or self._waited_ns(waiting, now_ns) < self._max_wait_ns():
            return []
        self._learn(now_ns, hurry=True)
        if self._pattern is not None:
            return self._emit(now_ns)
        start = min(one.image.stamp_ns for one in waiting)
        members = {}
        for name, camera in self._cameras.items():
            near = [
                one
                for one in camera.pending
                if one.image.stamp_ns - start <= self.config.max_spread_s * 1e9
            ]
            if near:
                members[name] = near[-1]
        missing = {
            name: self._why_missing(name, now_ns) for name in self._cameras if name not in members
        }
        for name in missing:
            self._cameras[name].missed += 1
        return [self._send(members, missing), *self._emit_unlearnt(now_ns)]

    @staticmethod
    def _waited_ns(received, now_ns):
        """Receive time since the newest of [_Received] came."""
        return now_ns - max(one.arrival_ns for one in received)

    def _max_wait_ns(self):
        return self.config.max_wait_s * 1e9

    def _oldest_round(self):
        """camera -> _Received, the members of the oldest round that has images; {} when there is
        none."""
        known = {
            name: [(self._round(one.image), one) for one in camera.pending]
            for name, camera in self._cameras.items()
            if camera.pending and name in self._pattern.offsets_ns
        }
        opens = [rounds[0][0] for name, rounds in known.items() if self._pattern.sets_pace(name)]
        if not opens:
            return {}
        oldest = min(opens)
        members = {}
        for name, rounds in known.items():
            distance, nearest = min(
                ((abs(at - oldest), one) for at, one in rounds), key=lambda item: item[0]
            )
            if distance <= self._tolerance():
                members[name] = nearest
        return members

    def _why_not_awaited(self, name, members, now_ns):
        """Reason why the round of `members` goes without a camera; None: its image may come."""
        camera, pattern = self._cameras[name], self._pattern
        after = self._round_time(members) + self._tolerance()
        if not self._expected(camera, now_ns) or (camera.suspects and not camera.pending):
            return self._why_missing(name, now_ns)
        if name not in pattern.offsets_ns:
            if camera.pending:
                return Reason(Code.NEW_CAMERA, 'when it fires is not known yet')
            return self._why_missing(name, now_ns)
        if any(self._round(one.image) > after for one in camera.pending):
            # A camera's images come in order, and it is past this round.
            return Reason(Code.SKIPPED_ROUND)
        if pattern.is_slow(name) and camera.stamps and self._round_of_next(name) > after:
            return Reason(Code.SLOWER, f'{1e9 / pattern.periods_ns[name]:.1f} Hz')
        if self._waited_ns(members.values(), now_ns) >= self._max_wait_ns():
            return Reason(Code.LATE, f'did not come within {self.config.max_wait_s:g} s')
        return None

    def _round_time(self, members):
        return float(np.median([self._round(one.image) for one in members.values()]))

    def _round_of_next(self, name):
        """Round time of the image expected next, at the earliest."""
        pattern = self._pattern
        expected = self._cameras[name].stamps[-1] + pattern.periods_ns[name]
        return pattern.round_ns(name, expected) - pattern.tolerance_ns

    def _nearer_may_come(self, name, members, now_ns):
        """Whether a fast camera's next image will fit the round better than the one it has."""
        pattern = self._pattern
        if pattern.sets_pace(name) or len(members) == 1:
            return False
        others = {other: one for other, one in members.items() if other != name}
        behind = self._round_time(others) - self._round(members[name].image)
        return (
            behind > pattern.periods_ns[name] / 2
            and self._waited_ns(members.values(), now_ns) < self._max_wait_ns()
            and self._expected(self._cameras[name], now_ns)
        )

    def _send(self, members, missing):
        """Take a round out of what is pending -> FrameSet; missing: camera -> Reason."""
        last_ns = max(one.image.stamp_ns for one in members.values())
        kept = _within(members, self.config.max_spread_s * 1e9)
        apart = {
            name: Reason(
                Code.SPREAD,
                f'{abs(one.image.stamp_ns - last_ns) / 1e9:.3f} s from the others, more than '
                f'max_spread_s={self.config.max_spread_s:g}',
            )
            for name, one in members.items()
            if name not in kept
        }
        for name in apart:
            self._drop(name, Code.SPREAD)
        self._last_set = {name: one.image.stamp_ns for name, one in members.items()}
        for name, one in members.items():
            self._cameras[name].pending.remove(one)
        self._drop_past(Code.SURPLUS)
        missing = {**missing, **apart}
        self.sets += 1
        self.incomplete_sets += bool(missing)
        images = {name: kept[name].image for name in self._cameras if name in kept}
        return FrameSet(max(image.stamp_ns for image in images.values()), images, missing)

    def _drop_past(self, code):
        for name, camera in self._cameras.items():
            before = len(camera.pending)
            camera.pending = [one for one in camera.pending if not self._is_past(name, one.image)]
            self._drop(name, code, before - len(camera.pending))

    def _is_past(self, name, image):
        """Whether an image belongs to the set that went out last, or to one before it."""
        if image.stamp_ns <= self._last_set.get(name, -1):
            return True
        if self._pattern is None or not self._last_set or name not in self._pattern.offsets_ns:
            return False
        if name in self._last_set and self._pattern.sets_pace(name):
            return False  # its next image, be it early, is of the next round
        return self._round(image) <= self._last_round() + self._tolerance()

    # -- living and dead

    def _expected(self, camera, now_ns):
        """Whether to wait for images of this camera.

        Counted in rounds missed and not in seconds alone: when all cameras pause, none of them is
        dead.
        """
        since = camera.arrivals[-1] if camera.arrivals else self._started_ns
        return (
            camera.missed < self.config.dead_after_periods
            or now_ns - since < self.config.dead_after_s * 1e9
        )

    def _silence_ns(self, camera):
        """Receive time without an image that is no longer ordinary."""
        silence = self.config.dead_after_s * 1e9
        if len(camera.arrivals) > 1:
            silence = max(
                silence,
                self.config.dead_after_periods * float(np.median(np.diff(camera.arrivals))),
            )
        return silence

    def _why_missing(self, name, now_ns):
        camera = self._cameras[name]
        if camera.suspects:
            return Reason(Code.CLOCK_OFF, f'{camera.off_by_s:+.1f} s from the other cameras')
        if camera.last_arrival_ns is None:
            return Reason(Code.NO_IMAGE_YET)
        return Reason(Code.NO_IMAGE, f'for {(now_ns - camera.last_arrival_ns) / 1e9:.1f} s')


def _within(members, spread_ns):
    """The largest part of a round whose stamps lie within `spread_ns`; the newest of equal
    ones."""
    best = {}
    for end in sorted(one.image.stamp_ns for one in members.values()):
        part = {
            name: one
            for name, one in members.items()
            if end - spread_ns <= one.image.stamp_ns <= end
        }
        if len(part) >= len(best):
            best = part
    return best


def _increasing(received):
    """[_Received] without those whose stamp is not newer than the camera's one before."""
    newest, result = {}, []
    for one in received:
        camera, stamp_ns = one.image.camera, one.image.stamp_ns
        if stamp_ns > newest.get(camera, -1):
            newest[camera] = stamp_ns
            result.append(one)
    return result
