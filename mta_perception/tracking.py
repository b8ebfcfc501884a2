"""SKELETON tracking.py — signatures fixed, bodies being written."""


class Tracker:
    """Detections in, stable ids out."""

    def __init__(self, config):
        pass

    def update(self, stamp_ns, world_from_ego, detections):
        """ids: list of K str, unique for the life of this object."""

    def trails(self):
        """dict id -> (n, 2) float64 world x, y [m], oldest first; only tracks seen in the last frame."""

    def reset(self):
        """End every track; ids are never used again."""
