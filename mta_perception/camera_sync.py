"""SKELETON camera_sync.py — signatures fixed, bodies being written."""
from typing import NamedTuple


class CameraStatus(NamedTuple):
    """One camera as the synchroniser saw it, for diagnostics."""
    images: int         # accepted since the start
    rate_hz: float      # from stamps; 0.0 when unknown
    age_s: float        # receive time since the newest image; inf when none came
    alive: bool
    dropped: dict       # reason -> count


class CameraSync:
    """Images in, frame sets out.  Not thread-safe: the caller's executor thread alone uses it."""

    def __init__(self, cameras, config):
        self.counts = {}         # Counter: 'sets', 'incomplete sets', drop reasons ... -> count
        self.last_reset = None   # (now_ns, reason) or None

    def add(self, image, now_ns):
        """Take one CameraImage received at now_ns (any monotone clock) -> list of finished FrameSet."""

    def poll(self, now_ns):
        """Let time pass (call every ~20 ms) -> list of FrameSet whose wait is over."""

    def reset(self, reason, now_ns):
        """Forget everything pending and learned."""

    def status(self, now_ns):
        """dict camera -> CameraStatus."""
