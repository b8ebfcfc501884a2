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

from mta_perception.frames import FrameSet
from mta_perception.pipeline.trigger_pattern import learn_pattern

_WINDOW = 8  # images a camera the pattern is learnt from
_MOST_PENDING = 16  # images a camera held back
_MOST_SUSPECTS = 4  # images a camera of another timeline held back
_REPEAT_NS = 100_000_000  # the same stamp again within this receive time: sent twice


class CameraStatus(NamedTuple):
    """One camera as the synchroniser saw it, for diagnostics."""

    images: int  # accepted since the start
    rate_hz: float  # by its stamps; 0.0 while unknown
    age_s: float  # receive time since its newest image; inf when none came
    alive: bool
    dropped: dict  # reason -> count


class _Camera:
    """What is known of one camera."""

    def __init__(self):
        self.pending = []  # (CameraImage, arrival), stamps ascending
        self.suspects = []  # (CameraImage, arrival) of another timeline
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
        self.counts = Counter()  # 'sets', 'incomplete sets', 'resets', and drop reasons
        self.last_reset = None  # (now_ns, reason)
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
        for accepted, arrival_ns in self._on_this_timeline(image, now_ns):
            self._accept(accepted, arrival_ns)
        return self._emit(now_ns)

    def poll(self, now_ns):
        """Let time pass, every 20 ms or so -> [FrameSet] whose wait is over."""
        self._advance(now_ns)
        return self._emit(now_ns)

    def reset(self, reason, now_ns):
        """Drop all that is pending.  The trigger pattern is kept: it is the rig's, not the
        drive's."""
        for name, camera in self._cameras.items():
            self._drop(name, 'reset', len(camera.pending) + len(camera.suspects))
            camera.clear()
        self._last_set = {}
        self._started_ns = now_ns
        self.counts['resets'] += 1
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
            self.reset('the receive clock ran back', now_ns)
            for camera in self._cameras.values():
                camera.last_arrival_ns = None
        self._now_ns = now_ns

    def _on_this_timeline(self, image, now_ns):
        """[(image, arrival)] to accept: none, this one, or after a jump all that led to it."""
        camera = self._cameras[image.camera]
        heads = [other.stamps[-1] for other in self._cameras.values() if other.stamps]
        if not heads:
            return [(image, now_ns)]
        ahead_ns = image.stamp_ns - max(heads)
        newer = not camera.stamps or image.stamp_ns > camera.stamps[-1]
        if newer and abs(ahead_ns) <= self.config.jump_s * 1e9:
            self._drop(image.camera, 'clock off', len(camera.suspects))
            camera.suspects.clear()
            return [(image, now_ns)]
        if (
            camera.stamps
            and image.stamp_ns == camera.stamps[-1]
            and now_ns - camera.arrivals[-1] < _REPEAT_NS
        ):
            self._drop(image.camera, 'duplicate')
            return []
        camera.off_by_s = ahead_ns / 1e9
        camera.suspects.append((image, now_ns))
        if len(camera.suspects) > _MOST_SUSPECTS:
            self._drop(image.camera, 'clock off')
            camera.suspects.pop(0)
        return self._jump(image, ahead_ns, now_ns)

    def _jump(self, image, ahead_ns, now_ns):
        """Reset where most living cameras agree with `image` on another time; else nothing."""
        agreeing, living = [], 0
        for camera in self._cameras.values():
            recent = now_ns - self._silence_ns(camera)
            living += camera.last_arrival_ns is not None and camera.last_arrival_ns >= recent
            near = [
                held
                for held in camera.suspects
                if held[1] >= recent
                and abs(held[0].stamp_ns - image.stamp_ns) <= self.config.jump_s * 1e9
            ]
            if near:
                agreeing.append(near)
        if len(agreeing) <= living // 2:
            return []
        for camera in self._cameras.values():  # they are accepted below, not dropped
            camera.suspects.clear()
        way = 'forward' if ahead_ns > 0 else 'back'
        self.reset(f'image stamps jumped {way} by {abs(ahead_ns) / 1e9:.2f} s', now_ns)
        held = sorted((pair for near in agreeing for pair in near), key=lambda pair: pair[1])
        return _increasing(held)

    def _accept(self, image, arrival_ns):
        camera = self._cameras[image.camera]
        camera.images += 1
        camera.stamps.append(image.stamp_ns)
        camera.arrivals.append(arrival_ns)
        camera.missed = 0
        if self._is_past(image.camera, image):
            self._drop(image.camera, 'late' if self._sets_pace(image.camera) else 'surplus')
            return
        camera.pending.append((image, arrival_ns))
        if len(camera.pending) > _MOST_PENDING:
            camera.pending.pop(0)
            self._drop(image.camera, 'surplus')

    def _drop(self, name, reason, count=1):
        if count:
            self._cameras[name].dropped[reason] += count
            self.counts[reason] += count

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
        # Two pauses a camera, because rounds may be of two lengths; one more where not all show
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
                    pair
                    for pair in camera.pending
                    if name in learnt.offsets_ns
                    and self._round(pair[0]) < start - learnt.tolerance_ns
                ]
                self._drop(name, 'before the first whole set', len(early))
                camera.pending = camera.pending[len(early) :]
        self._drop_past('late')

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
            matched = self._oldest_round()
            if not matched:
                return sets
            missing = {}
            for name in self._cameras:
                if name not in matched and not self._given_up(name, matched, now_ns, missing):
                    return sets
            if any(self._nearer_may_come(name, matched, now_ns) for name in matched):
                return sets
            sets.append(self._send(matched, missing))
            self._learn(now_ns)

    def _emit_unlearnt(self, now_ns):
        """Before any camera delivered twice: whatever lies within the spread, after a pause."""
        waiting = [pair for camera in self._cameras.values() for pair in camera.pending]
        if not waiting or now_ns - max(pair[1] for pair in waiting) < self._max_wait_ns():
            return []
        self._learn(now_ns, hurry=True)
        if self._pattern is not None:
            return self._emit(now_ns)
        start = min(pair[0].stamp_ns for pair in waiting)
        matched = {}
        for name, camera in self._cameras.items():
            near = [
                pair
                for pair in camera.pending
                if pair[0].stamp_ns - start <= self.config.max_spread_s * 1e9
            ]
            if near:
                matched[name] = near[-1]
        missing = {
            name: self._why_missing(name, now_ns) for name in self._cameras if name not in matched
        }
        for name in missing:
            self._cameras[name].missed += 1
        return [self._send(matched, missing), *self._emit_unlearnt(now_ns)]

    def _max_wait_ns(self):
        return self.config.max_wait_s * 1e9

    def _oldest_round(self):
        """camera -> (image, arrival) of the oldest round that has images; empty when there is
        none."""
        known = {
            name: [(self._round(pair[0]), pair) for pair in camera.pending]
            for name, camera in self._cameras.items()
            if camera.pending and name in self._pattern.offsets_ns
        }
        opens = [rounds[0][0] for name, rounds in known.items() if self._pattern.sets_pace(name)]
        if not opens:
            return {}
        oldest = min(opens)
        matched = {}
        for name, rounds in known.items():
            distance, pair = min(
                ((abs(at - oldest), pair) for at, pair in rounds), key=lambda item: item[0]
            )
            if distance <= self._tolerance():
                matched[name] = pair
        return matched

    def _given_up(self, name, matched, now_ns, missing):
        """Whether the round need not wait for a camera; says why in `missing`."""
        camera, pattern = self._cameras[name], self._pattern
        at = float(np.median([self._round(pair[0]) for pair in matched.values()]))
        tolerance = self._tolerance()
        if not self._expected(camera, now_ns) or (camera.suspects and not camera.pending):
            missing[name] = self._why_missing(name, now_ns)
        elif name not in pattern.offsets_ns:
            missing[name] = (
                'new: when it fires is not known yet'
                if camera.pending
                else self._why_missing(name, now_ns)
            )
        elif any(self._round(pair[0]) > at + tolerance for pair in camera.pending):
            # A camera's images come in order, and it is past this round.
            missing[name] = 'skipped this round'
        elif (
            pattern.is_slow(name) and camera.stamps and self._round_of_next(name) > at + tolerance
        ):
            missing[name] = f'slower than the others ({1e9 / pattern.periods_ns[name]:.1f} Hz)'
        elif now_ns - max(pair[1] for pair in matched.values()) >= self._max_wait_ns():
            camera.missed += 1
            missing[name] = f'late: did not come within {self.config.max_wait_s:g} s'
        return name in missing

    def _round_of_next(self, name):
        """Round time of the image expected next, at the earliest."""
        pattern = self._pattern
        expected = self._cameras[name].stamps[-1] + pattern.periods_ns[name]
        return pattern.round_ns(name, expected) - pattern.tolerance_ns

    def _nearer_may_come(self, name, matched, now_ns):
        """Whether a fast camera's next image will fit the round better than the one it has."""
        pattern = self._pattern
        if pattern.sets_pace(name) or len(matched) == 1:
            return False
        at = np.median([self._round(pair[0]) for other, pair in matched.items() if other != name])
        behind = at - self._round(matched[name][0])
        waited = now_ns - max(pair[1] for pair in matched.values())
        return (
            behind > pattern.periods_ns[name] / 2
            and waited < self._max_wait_ns()
            and self._expected(self._cameras[name], now_ns)
        )

    def _send(self, matched, missing):
        """Take a round out of what is pending -> FrameSet."""
        last_ns = max(pair[0].stamp_ns for pair in matched.values())
        kept = _within(matched, self.config.max_spread_s * 1e9)
        for name in set(matched) - set(kept):
            away = abs(matched[name][0].stamp_ns - last_ns) / 1e9
            missing[name] = f'{away:.3f} s from the others, more than max_spread_s'
            self._drop(name, 'spread')
        self._last_set = {name: pair[0].stamp_ns for name, pair in matched.items()}
        for name in matched:
            self._cameras[name].pending.remove(matched[name])
        self._drop_past('surplus')
        self.counts['sets'] += 1
        self.counts['incomplete sets'] += bool(missing)
        images = {name: kept[name][0] for name in self._cameras if name in kept}
        return FrameSet(max(image.stamp_ns for image in images.values()), images, missing)

    def _drop_past(self, reason):
        for name, camera in self._cameras.items():
            before = len(camera.pending)
            camera.pending = [pair for pair in camera.pending if not self._is_past(name, pair[0])]
            self._drop(name, reason, before - len(camera.pending))

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
            return f'its clock is {camera.off_by_s:+.1f} s off the other cameras'
        if camera.last_arrival_ns is None:
            return 'no image has come yet'
        return f'no image for {(now_ns - camera.last_arrival_ns) / 1e9:.1f} s'


def _within(matched, spread_ns):
    """The largest part of a round whose stamps lie within `spread_ns`; the newest of equal
    ones."""
    best = {}
    for end in sorted(pair[0].stamp_ns for pair in matched.values()):
        part = {
            name: pair
            for name, pair in matched.items()
            if end - spread_ns <= pair[0].stamp_ns <= end
        }
        if len(part) >= len(best):
            best = part
    return best


def _increasing(held):
    """(image, arrival) pairs without those whose stamp is not newer than the camera's one
    before."""
    newest, result = {}, []
    for image, arrival_ns in held:
        if image.stamp_ns > newest.get(image.camera, -1):
            newest[image.camera] = image.stamp_ns
            result.append((image, arrival_ns))
    return result
