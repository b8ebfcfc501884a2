"""When two poses cannot belong to one drive: no car is that fast, and none turns like that."""

import numpy as np

from mta_perception.geometry import Array

SLACK_M = 0.5  # odometry may correct itself by this much at once
SLACK_RAD = 0.15


def pose_jump(
    world_from_before: Array,
    world_from_now: Array,
    seconds: float,
    max_speed_m_s: float,
    max_turn_rad_s: float,
) -> str:
    """By how much two poses (4, 4) are apart, in words; '' where a car can drive from one to the
    other within `seconds`."""
    metres = float(np.linalg.norm(world_from_now[:3, 3] - world_from_before[:3, 3]))
    if not metres <= max_speed_m_s * seconds + SLACK_M:  # NaN too: poses of 1e308 m
        return f'by {metres:.1f} m within {seconds:.3f} s'
    turn = world_from_before[:3, :3].T @ world_from_now[:3, :3]
    angle = float(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0)))
    if angle > max_turn_rad_s * seconds + SLACK_RAD:
        return f'by {np.degrees(angle):.0f} degrees within {seconds:.3f} s'
    return ''
