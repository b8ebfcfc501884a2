"""How the car's body leans: camber and slopes of the road, the suspension, bumps.

The world stays level (its z axis is gravity's, its ground flat); what leans is the ego frame, as
on the real drive, where the road leans two degrees under the car and all around is level.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.geometry import rigid


class Lean(NamedTuple):
    """Pitch and roll over a scene as sums of slow and quick waves; radians and seconds."""

    constant: np.ndarray  # (2,) pitch (nose down is positive), roll (right side down is positive)
    amplitudes: np.ndarray  # (waves, 2)
    frequencies: np.ndarray  # (waves,) rad/s
    phases: np.ndarray  # (waves, 2)

    def ego_from_body(self, time):
        """(4, 4): the leaning frame in that of a car on a level road; the origin stays."""
        waves = np.sin(self.frequencies[:, None] * time + self.phases)
        pitch, roll = self.constant + (self.amplitudes * waves).sum(0)
        cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
        about_y = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
        about_x = np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]])
        return rigid(about_y @ about_x, np.zeros(3))


def random_lean(rng):
    """The Lean of a scene: mostly under two degrees, at most about three and a half."""
    constant = np.deg2rad(np.clip(rng.normal(0.0, [0.7, 1.2]), -3.0, 3.0))
    frequencies = np.array([rng.uniform(0.15, 0.6), rng.uniform(0.8, 2.0), rng.uniform(5.0, 9.0)])
    amplitudes = np.deg2rad(np.abs(rng.normal(0.0, [[0.4, 0.4], [0.25, 0.2], [0.12, 0.08]])))
    return Lean(constant, amplitudes, frequencies, rng.uniform(0, 2 * np.pi, (3, 2)))
