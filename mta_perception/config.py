"""Settings of the vehicle side: frozen, validated as they are built, every value with its unit.

The defaults stand here alone: the node's parameters take theirs from these classes, and a test
holds params/perception.yaml to them.
"""

from dataclasses import dataclass
from typing import Optional

from mta_perception.checks import require, require_positive


@dataclass(frozen=True)
class SyncConfig:
    """How images of several cameras are put together to one frame set."""

    # Oldest to newest stamp within a set [s].  What a round of the rig takes is learnt; this is
    # the last resort, and what it cuts says so.
    max_spread_s: float = 0.25
    max_wait_s: float = 0.25  # receive time without an image that a set waits for more [s]
    dead_after_s: float = 0.5  # receive time without an image until a camera counts as dead [s]
    dead_after_periods: int = 4  # ... and at least this many periods of that camera
    jump_s: float = 1.0  # stamps this far from the others' are another timeline [s]

    def __post_init__(self) -> None:
        require_positive(
            max_spread_s=self.max_spread_s,
            max_wait_s=self.max_wait_s,
            dead_after_s=self.dead_after_s,
            dead_after_periods=self.dead_after_periods,
            jump_s=self.jump_s,
        )
        require(
            self.jump_s > 2 * self.max_spread_s,
            f'jump_s={self.jump_s} s is not above twice max_spread_s={self.max_spread_s} s: '
            'ordinary trigger offsets would look like clock jumps.',
        )


@dataclass(frozen=True)
class EgoMotionConfig:
    """How far apart odometry may be, and what still counts as one drive."""

    keep_s: float = 5.0  # poses older than this are forgotten [s]
    max_gap_s: float = 1.0  # no interpolation between poses further apart [s]
    max_extrapolation_s: float = 0.3  # beyond the newest pose, at constant twist [s]
    max_speed_m_s: float = 80.0  # faster than this the pose has jumped [m/s]
    max_turn_rad_s: float = 3.0  # ... or quicker round any axis; cars stay below 1.5 [rad/s]
    lasting_s: float = 0.15  # poses elsewhere that agree for this long are another drive [s]

    def __post_init__(self) -> None:
        require_positive(
            keep_s=self.keep_s,
            max_gap_s=self.max_gap_s,
            max_speed_m_s=self.max_speed_m_s,
            max_turn_rad_s=self.max_turn_rad_s,
            lasting_s=self.lasting_s,
        )
        require(
            0 <= self.max_extrapolation_s <= 0.5,
            f'max_extrapolation_s={self.max_extrapolation_s} is not in [0, 0.5] s: a '
            'constant twist is no guess at a car beyond that.',
        )


@dataclass(frozen=True)
class MemoryConfig:
    """Which remembered BEV the network gets, and when the memory is dropped."""

    step_s: float = 0.5  # age of the history the network was trained with [s]
    max_gap_s: float = 1.2  # newest remembered frame older than this: memory dropped [s]
    min_age_s: float = 0.25  # younger than this the history says nothing about motion [s]
    max_speed_m_s: float = 80.0  # faster than this the pose has jumped [m/s]
    max_turn_rad_s: float = 3.0  # ... or quicker round any axis [rad/s]

    @classmethod
    def trained_at(cls, step_s: float, **others: float) -> 'MemoryConfig':
        """For a network that learned with frames `step_s` apart; half of that is too young."""
        return cls(step_s=step_s, min_age_s=step_s / 2, **others)

    def __post_init__(self) -> None:
        require_positive(
            step_s=self.step_s, max_gap_s=self.max_gap_s, max_speed_m_s=self.max_speed_m_s
        )
        require(
            0 <= self.min_age_s <= self.step_s,
            f'min_age_s={self.min_age_s} is not in [0, step_s={self.step_s}].',
        )
        require(
            self.max_gap_s >= self.step_s,
            f'max_gap_s={self.max_gap_s} is below step_s={self.step_s}: no frame would ever '
            f'be recalled. Choose e.g. {2 * self.step_s:g}.',
        )


@dataclass(frozen=True)
class TrackingConfig:
    """How detections of different frames become one object."""

    max_coast_s: float = 1.0  # a track without a detection lives on this long [s]
    trail_s: float = 5.0  # length of the drawn trail [s]
    max_gap_s: float = 2.0  # longer without frames and every track ends [s]
    max_tracks: int = 500  # bound on memory: the longest unseen go first

    def __post_init__(self) -> None:
        require_positive(
            max_coast_s=self.max_coast_s,
            trail_s=self.trail_s,
            max_gap_s=self.max_gap_s,
            max_tracks=self.max_tracks,
        )


@dataclass(frozen=True)
class PipelineConfig:
    """One step from images to tracked detections."""

    min_cameras: int = 4  # fewer usable images: the frame is dropped
    score_threshold: Optional[float] = None  # in (0, 1); None: the manifest's
    max_detections: Optional[int] = None  # per frame; None: the manifest's
    history_max_gap_s: float = MemoryConfig.max_gap_s  # [s]
    decode_threads: int = 2  # images decoded side by side
    has_spare_cores: bool = False  # beside those that the detector takes
    level: bool = True  # the bird's-eye view lies level, by the odometry's roll and pitch
    tracking: TrackingConfig = TrackingConfig()

    def __post_init__(self) -> None:
        require(1 <= self.min_cameras <= 6, f'min_cameras={self.min_cameras} is not in 1..6.')
        require(
            self.score_threshold is None or 0 <= self.score_threshold < 1,
            f'score_threshold={self.score_threshold} is not in [0, 1).',
        )
        require(
            self.max_detections is None or self.max_detections >= 1,
            f'max_detections={self.max_detections} is below 1.',
        )
        require(
            1 <= self.decode_threads <= 16,
            f'decode_threads={self.decode_threads} is not in 1..16.',
        )
        require_positive(history_max_gap_s=self.history_max_gap_s)
