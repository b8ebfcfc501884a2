"""SKELETON ego_motion.py — signatures fixed, bodies being written."""


class EgoMotionError(ValueError):
    """No pose for that stamp; .reason is one of 'no odometry', 'too old', 'too new', 'gap'."""


class EgoMotion:
    """Poses in, pose at any stamp out.  Thread-safe."""

    def __init__(self, config=None):
        self.counts = {}         # Counter: 'poses', 'not finite', 'duplicate', 'clock jump', 'pose jump' ...
        self.last_reset = None   # (stamp_ns, reason) or None

    def add(self, stamp_ns, world_from_ego):
        """Take a (4, 4) pose.  Returns None when taken, else the reason (str) it was refused."""

    def add_quaternion(self, stamp_ns, translation, quaternion_xyzw):
        """The same from message fields; refuses NaN and non-unit quaternions."""

    def world_from_ego(self, stamp_ns):
        """(4, 4) at the stamp.  Raises EgoMotionError."""

    @property
    def newest_stamp_ns(self):
        """int or None."""

    def reset(self, reason):
        """Forget all poses."""
