"""Images of several cameras put together to frame sets.

Made for cameras that fire one after the other (nuScenes: within 43 of 83 ms), and as good for
cameras that fire together: the trigger pattern is learnt from the stamps (trigger_pattern.py), so
that a set is one round of the rig and not whatever six images came last.  A set goes out as soon
as every camera that can still deliver has; it never waits longer than `max_wait_s`, and not at all
for a camera known to be dead.

Pure: no thread, no clock, no ROS.  Stamps are image time, `now_ns` is receive time, and the two
are never compared: a bag of 2018 may be played today at any rate.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from statistics import median

from mta_perception.config import SyncConfig
from mta_perception.frames import CameraImage, FrameSet
from mta_perception.pipeline.camera_stream import (
    WINDOW,
    CameraStatus,
    CameraStream,
    Received,
    Round,
    increasing,
    within,
)
from mta_perception.pipeline.trigger_pattern import TriggerPattern, learn_pattern
from mta_perception.reasons import Code, Reason

_MOST_PENDING = 16  # images per camera held back
_LEARN_EVERY = 48  # sets that fit the pattern
_FITTING = 0.35  # of the tolerance: what lies nearer to the pattern teaches nothing
_UNLEARNT_NS = 100_000_000  # oldest to newest of a set while the pattern is not known
_MOST_SUSPECTS = 4  # images per camera of another timeline held back


class CameraSync:
    """Images in, frame sets out.  One thread at a time."""

    def __init__(self, cameras: Iterable[str], config: SyncConfig) -> None:
        self.config = config
        self.sets = self.incomplete_sets = self.resets = 0
        self.dropped: Counter[Code] = Counter()  # images
        self.last_reset: tuple[int, Reason] | None = None  # with its receive time [ns]
        self._cameras = {name: CameraStream(config) for name in cameras}
        self._pattern: TriggerPattern | None = None
        self._last_set: dict[str, int] = {}  # camera -> stamp, of the set that went out last
        self._unlearnt_sets = 0  # that went out since the pattern was learnt
        self._is_settled = False  # whether it was learnt from as much as is kept
        self._has_started = False
        self._started_ns = self._now_ns = 0  # receive time of the first call, and of the newest

    def add(self, image: CameraImage, now_ns: int) -> list[FrameSet]:
        """Take an image received at now_ns (any clock that does not run back).

        The list is empty, or holds the sets that this image completed, oldest first.
        """
        if image.camera not in self._cameras:
            raise ValueError(
                f'image of camera {image.camera!r}, expected one of {list(self._cameras)}.'
            )
        self._advance(now_ns)
        self._cameras[image.camera].last_arrival_ns = now_ns
        for received in self._on_this_timeline(Received(image, now_ns)):
            self._accept(received)
        return self._emit(now_ns)

    def poll(self, now_ns: int) -> list[FrameSet]:
        """Let time pass, every 20 ms or so; gives the sets whose wait is over."""
        self._advance(now_ns)
        return self._emit(now_ns)

    def reset(self, reason: Reason, now_ns: int) -> None:
        """Drop all that is pending; the trigger pattern is the rig's and not the drive's: kept."""
        for name, camera in self._cameras.items():
            self._drop(name, Code.SYNC_RESET, len(camera.pending) + len(camera.suspects))
            camera.clear()
        self._last_set = {}
        self._started_ns = now_ns
        self.resets += 1
        self.last_reset = now_ns, reason

    def status(self, now_ns: int) -> dict[str, CameraStatus]:
        """Of each camera."""
        return {
            name: camera.status(now_ns, self._started_ns) for name, camera in self._cameras.items()
        }

    def stamp_fault(self, camera: str) -> Reason | None:
        """What is wrong with the clock that stamps a camera's images; None where it moves."""
        return self._cameras[camera].stamp_fault()

    # -- one timeline

    def _advance(self, now_ns: int) -> None:
        if not self._has_started:
            self._has_started, self._started_ns = True, now_ns
        elif now_ns < self._now_ns:
            back_s = (self._now_ns - now_ns) / 1e9
            self.reset(Reason(Code.RECEIVE_CLOCK_RAN_BACK, f'by {back_s:.2f} s'), now_ns)
            for camera in self._cameras.values():
                camera.last_arrival_ns = None
        self._now_ns = now_ns

    def _on_this_timeline(self, received: Received) -> list[Received]:
        """What to accept: nothing, this one, or after a jump all that led to it."""
        image, now_ns = received
        camera = self._cameras[image.camera]
        if camera.is_repeat(received):
            self._drop(image.camera, Code.DUPLICATE_IMAGE)
            return []
        if camera.stands_still(received):
            # A clock that stands is no other timeline: resets would follow each other.
            self._drop(image.camera, Code.STAMP_STANDS)
            return []
        heads = [other.stamps[-1] for other in self._cameras.values() if other.stamps]
        if not heads:
            return [received]
        ahead_ns = image.stamp_ns - max(heads)
        newer = not camera.stamps or image.stamp_ns > camera.stamps[-1]
        if newer and abs(ahead_ns) <= self.config.jump_s * 1e9:
            self._drop(image.camera, Code.CLOCK_OFF, len(camera.suspects))
            camera.suspects.clear()
            return [received]
        camera.off_by_s = ahead_ns / 1e9
        camera.suspects.append(received)
        if len(camera.suspects) > _MOST_SUSPECTS:
            self._drop(image.camera, Code.CLOCK_OFF)
            camera.suspects.pop(0)
        return self._jump(image, ahead_ns, now_ns)

    def _jump(self, image: CameraImage, ahead_ns: int, now_ns: int) -> list[Received]:
        """Reset where most living cameras agree with `image` on another time, and give all that
        led to it; else nothing."""
        cameras = self._cameras.values()
        living = sum(camera.is_speaking(now_ns) for camera in cameras)
        near = [camera.suspects_near(image.stamp_ns, now_ns) for camera in cameras]
        agreeing = [suspects for suspects in near if suspects]
        if len(agreeing) <= living // 2:
            return []
        for camera in cameras:  # their suspects are accepted below, not dropped
            camera.suspects.clear()
        code = Code.CLOCK_JUMPED_FORWARD if ahead_ns > 0 else Code.CLOCK_JUMPED_BACK
        by = f'image stamps of most cameras, by {abs(ahead_ns) / 1e9:.2f} s'
        self.reset(Reason(code, by), now_ns)
        return increasing(sorted(chain.from_iterable(agreeing), key=lambda one: one.arrival_ns))

    def _accept(self, received: Received) -> None:
        name = received.image.camera
        camera = self._cameras[name]
        camera.accept(received)
        if self._is_past(name, received):
            self._drop(name, Code.LATE if self._sets_pace(name) else Code.SURPLUS)
            return
        camera.pending.append(received)
        if len(camera.pending) > _MOST_PENDING:
            camera.pending.pop(0)
            self._drop(name, Code.SURPLUS)

    def _drop(self, name: str, code: Code, count: int = 1) -> None:
        if count:
            self._cameras[name].dropped[code] += count
            self.dropped[code] += count

    # -- rounds

    def _sets_pace(self, name: str) -> bool:
        return (
            self._pattern is None
            or name not in self._pattern.offsets_ns
            or self._pattern.sets_pace(name)
        )

    def _last_round(self, pattern: TriggerPattern) -> float:
        known = [
            pattern.round_ns(name, stamp)
            for name, stamp in self._last_set.items()
            if name in pattern.offsets_ns
        ]
        return float(median(known)) if known else float('-inf')

    def _learn(self, now_ns: int, hurry: bool = False) -> None:
        """Bring the pattern up to date with the cameras that deliver; in a `hurry` from what there
        is."""
        living = {
            name: list(camera.stamps)
            for name, camera in self._cameras.items()
            if camera.stamps and camera.is_expected(now_ns, self._started_ns)
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
        self._unlearnt_sets, self._is_settled = 0, counts[0] >= WINDOW
        if first and not self._last_set:
            # A stream joined in the middle of a round: what came before the first whole one.
            start = min(self._cameras[learnt.leader].stamps)
            for name, camera in self._cameras.items():
                early = [
                    one
                    for one in camera.pending
                    if name in learnt.offsets_ns
                    and _round_ns(learnt, one) < start - learnt.tolerance_ns
                ]
                self._drop(name, Code.BEFORE_FIRST_SET, len(early))
                camera.pending = camera.pending[len(early) :]
        self._drop_past(Code.LATE)

    def _emit(self, now_ns: int) -> list[FrameSet]:
        sets: list[FrameSet] = []
        if self._pattern is None or any(
            camera.pending and name not in self._pattern.offsets_ns
            for name, camera in self._cameras.items()
        ):
            self._learn(now_ns)
        if self._pattern is None:
            return self._emit_unlearnt(now_ns)
        while not self._awaits_more(self._pattern, now_ns):
            pattern = self._pattern
            members = self._oldest_round(pattern)
            if not members:
                return sets
            missing = self._not_awaited(pattern, members, now_ns)
            if missing is None or any(
                self._nearer_may_come(pattern, name, members, now_ns) for name in members
            ):
                return sets
            for name, reason in missing.items():
                self._cameras[name].missed += reason.code is Code.LATE
            fits = self._fits(pattern, members)
            sets.append(self._send(members, missing))
            if fits:
                self._drop_past(Code.LATE)
            else:
                self._learn(now_ns)
        return sets

    def _awaits_more(self, pattern: TriggerPattern, now_ns: int) -> bool:
        """Whether nothing can go out for certain: a camera of every round is still to come, and
        none has waited long.

        So it is for five of six images; all else is only worked out for the sixth.
        """
        cameras = self._cameras.values()
        since = [camera.pending[0].arrival_ns for camera in cameras if camera.pending]
        if not since:
            return True
        if now_ns - min(since) >= self.config.max_wait_s * 1e9:
            return False
        return any(
            not camera.pending
            and not camera.suspects
            and name in pattern.offsets_ns
            and not pattern.is_slow(name)
            and camera.is_expected(now_ns, self._started_ns)
            for name, camera in self._cameras.items()
        )

    def _fits(self, pattern: TriggerPattern, members: Round) -> bool:
        """Whether a round came as learnt, so that there is nothing to learn from it.

        Now and then it is looked at all the same: clocks drift.
        """
        self._unlearnt_sets += 1
        if self._unlearnt_sets >= _LEARN_EVERY or not self._is_settled:
            return False
        rounds = sorted(_round_ns(pattern, one) for one in members.values())
        slack_ns = _FITTING * pattern.tolerance_ns
        pause_ns = rounds[-1] - self._last_round(pattern)
        return (
            rounds[-1] - rounds[0] <= slack_ns and abs(pause_ns - pattern.pace_ns) <= 2 * slack_ns
        )

    def _emit_unlearnt(self, now_ns: int) -> list[FrameSet]:
        """Before any camera delivered twice: whatever lies within the spread, after a pause."""
        waiting = [one for camera in self._cameras.values() for one in camera.pending]
        if not waiting or not self._has_waited(waiting, now_ns):
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
                if one.image.stamp_ns - start <= min(self.config.max_spread_s * 1e9, _UNLEARNT_NS)
            ]
            if near:
                members[name] = near[-1]
        missing = {
            name: camera.why_missing(now_ns)
            for name, camera in self._cameras.items()
            if name not in members
        }
        for name in missing:
            self._cameras[name].missed += 1
        return [self._send(members, missing), *self._emit_unlearnt(now_ns)]

    def _has_waited(self, received: Iterable[Received], now_ns: int) -> bool:
        """Whether the newest of these came so long ago that no more are waited for."""
        newest_ns = max(one.arrival_ns for one in received)
        return now_ns - newest_ns >= self.config.max_wait_s * 1e9

    def _oldest_round(self, pattern: TriggerPattern) -> Round:
        """The oldest round that has images; empty when there is none."""
        known = {
            name: [(_round_ns(pattern, one), one) for one in camera.pending]
            for name, camera in self._cameras.items()
            if camera.pending and name in pattern.offsets_ns
        }
        opens = [rounds[0][0] for name, rounds in known.items() if pattern.sets_pace(name)]
        if not opens:
            return {}
        oldest = min(opens)
        members = {}
        for name, rounds in known.items():
            distance, nearest = min(
                ((abs(at - oldest), one) for at, one in rounds), key=lambda item: item[0]
            )
            if distance <= pattern.tolerance_ns:
                members[name] = nearest
        return members

    def _not_awaited(
        self, pattern: TriggerPattern, members: Round, now_ns: int
    ) -> dict[str, Reason] | None:
        """Why the round of `members` goes without each other camera; None: an image may come."""
        missing = {}
        for name in self._cameras:
            if name in members:
                continue
            reason = self._why_not_awaited(pattern, name, members, now_ns)
            if reason is None:
                return None
            missing[name] = reason
        return missing

    def _why_not_awaited(
        self, pattern: TriggerPattern, name: str, members: Round, now_ns: int
    ) -> Reason | None:
        """Why the round of `members` goes without a camera; None: its image may come."""
        camera = self._cameras[name]
        after = _median_round_ns(pattern, members.values()) + pattern.tolerance_ns
        expected = camera.is_expected(now_ns, self._started_ns)
        if not expected or (camera.suspects and not camera.pending):
            return camera.why_missing(now_ns)
        if name not in pattern.offsets_ns:
            if camera.pending:
                return Reason(Code.NEW_CAMERA, 'when it fires is not known yet')
            return camera.why_missing(now_ns)
        if any(_round_ns(pattern, one) > after for one in camera.pending):
            # A camera's images come in order, and it is past this round.
            return Reason(Code.SKIPPED_ROUND)
        if pattern.is_slow(name) and camera.stamps:
            expected_ns = camera.stamps[-1] + pattern.periods_ns[name]
            if pattern.round_ns(name, expected_ns) - pattern.tolerance_ns > after:
                return Reason(Code.SLOWER, f'{1e9 / pattern.periods_ns[name]:.1f} Hz')
        if self._has_waited(members.values(), now_ns):
            return Reason(Code.LATE, f'did not come within {self.config.max_wait_s:g} s')
        return None

    def _nearer_may_come(
        self, pattern: TriggerPattern, name: str, members: Round, now_ns: int
    ) -> bool:
        """Whether a fast camera's next image will fit the round better than the one it has."""
        if pattern.sets_pace(name) or len(members) == 1:
            return False
        others = [one for other, one in members.items() if other != name]
        behind = _median_round_ns(pattern, others) - _round_ns(pattern, members[name])
        return (
            behind > pattern.periods_ns[name] / 2
            and not self._has_waited(members.values(), now_ns)
            and self._cameras[name].is_expected(now_ns, self._started_ns)
        )

    def _send(self, members: Round, missing: dict[str, Reason]) -> FrameSet:
        """Take a round out of what is pending; missing: why the other cameras are not in it."""
        last_ns = max(one.image.stamp_ns for one in members.values())
        kept = within(members, self.config.max_spread_s * 1e9)
        longer = self._pattern.longer_than(self.config.max_spread_s) if self._pattern else ''
        apart = {
            name: Reason(
                Code.SPREAD,
                f'{abs(one.image.stamp_ns - last_ns) / 1e9:.3f} s from the others, more than '
                f'max_spread_s={self.config.max_spread_s:g}{longer}',
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

    def _drop_past(self, code: Code) -> None:
        for name, camera in self._cameras.items():
            before = len(camera.pending)
            camera.pending = [one for one in camera.pending if not self._is_past(name, one)]
            self._drop(name, code, before - len(camera.pending))

    def _is_past(self, name: str, received: Received) -> bool:
        """Whether an image belongs to the set that went out last, or to one before it."""
        if received.image.stamp_ns <= self._last_set.get(name, -1):
            return True
        pattern = self._pattern
        if pattern is None or not self._last_set or name not in pattern.offsets_ns:
            return False
        if name in self._last_set and pattern.sets_pace(name):
            return False  # its next image, be it early, is of the next round
        return _round_ns(pattern, received) <= self._last_round(pattern) + pattern.tolerance_ns


def _round_ns(pattern: TriggerPattern, received: Received) -> float:
    """Round time of an image."""
    return pattern.round_ns(received.image.camera, received.image.stamp_ns)


def _median_round_ns(pattern: TriggerPattern, members: Iterable[Received]) -> float:
    return float(median(_round_ns(pattern, one) for one in members))
