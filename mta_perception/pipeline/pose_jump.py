"""When two poses cannot belong to one drive: no car is that fast."""

from typing import Optional

import numpy as np

from mta_perception.geometry import Array

SLACK_M = 0.5  # odometry may correct itself by this much at once


def jump_m(
    world_from_before: Array, world_from_now: Array, seconds: float, max_speed_m_s: float
) -> Optional[float]:
    """Metres between two poses (4, 4), or None where a car can drive them within `seconds`."""
    metres = float(np.linalg.norm(world_from_now[:3, 3] - world_from_before[:3, 3]))
    return metres if metres > max_speed_m_s * seconds + SLACK_M else None
