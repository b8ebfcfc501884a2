"""Who is in the street and where each of them is at any time.

A scene's agents are fixed or move along a `Path`; `Traffic.states(t)` gives what the renderer and
the tables need, `Traffic.world_from_ego(t)` the car the cameras ride on.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.geometry import rigid_from_yaw
from mta_training.synth.actors.catalogue import KINDS, Look
from mta_training.synth.scene import ObjectState
from mta_training.synth.town.paths import Path

EGO_LENGTH_M, EGO_WIDTH_M = 4.08, 1.73
EGO_WHEELBASE_M = 2.59
WHEEL_RADIUS_M, STRIDE_M = 0.33, 1.45


class Motion(NamedTuple):
    """Along a path; the body's middle is `shift` metres behind the arc length s."""

    path: Path
    times: np.ndarray
    s: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    shift: float
    chord: float  # distance of the axles [m]; 0.2 and less: turns on the spot

    @staticmethod
    def of_drive(path, drive, shift, chord):
        """The motion of (a part of) a driven vehicle."""
        return Motion(path, *drive, shift, chord)

    def along(self, time):
        """Arc length [m], speed [m/s], acceleration [m/s^2] at times (...): cubic between the
        steps.
        """
        step = self.times[1] - self.times[0]
        position = np.clip((np.asarray(time) - self.times[0]) / step, 0.0, len(self.times) - 1.001)
        k = position.astype(int)
        u = position - k
        s, speed = hermite(u, self.s[k], self.s[k + 1], self.speed[k], self.speed[k + 1], step)
        acceleration = self.acceleration[k] * (1 - u) + self.acceleration[k + 1] * u
        return s, speed, acceleration

    def pose(self, time):
        """Centre (..., 2) and heading (...) at times (...)."""
        s, _, _ = self.along(time)
        return self.path.chord(s - self.shift, self.chord)


class Agent(NamedTuple):
    """One object of the scene; exactly one of `pose` and `motion` is given."""

    look: Look
    pose: tuple  # x, y, yaw for what never moves, else None
    motion: Motion  # else None
    parked: bool  # of vehicles: at rest for good
    # 'parked' | 'driving' | 'towed' | 'walking' | 'crossing' | 'standing' | 'works'
    role: str
    group: int  # those that belong together (truck and trailer) share it; -1 = none

    def footprints(self, times):
        """(T, 5) footprints, see footprints.py."""
        length, width, _ = self.look.size
        if self.motion is None:
            return np.tile([*self.pose, length, width], (len(times), 1))
        centre, yaw = self.motion.pose(np.asarray(times))
        rest = np.broadcast_to([length, width], (len(times), 2))
        return np.concatenate([centre, yaw[:, None], rest], axis=1)


class _Movers:
    """All moving agents as arrays, so that one instant costs a few numpy calls."""

    def __init__(self, agents):
        self.instances = [k + 1 for k, agent in enumerate(agents) if agent.motion is not None]
        motions = [agents[k - 1].motion for k in self.instances]
        ticks = max((len(m.times) for m in motions), default=2)
        points = max((len(m.path.points) for m in motions), default=2)
        self.rows = np.arange(len(motions))
        self.first = np.array([m.times[0] for m in motions])
        self.tick = np.array([m.times[1] - m.times[0] for m in motions])
        self.last = np.array([len(m.times) - 1.001 for m in motions])
        self.log = np.zeros((3, len(motions), ticks))
        self.points = np.zeros((len(motions), points, 2))
        for k, m in enumerate(motions):
            self.log[:, k, : len(m.times)] = m.s, m.speed, m.acceleration
            self.points[k, : len(m.path.points)] = m.path.points
        self.step = np.array([m.path.step for m in motions])
        self.final = np.array([len(m.path.points) - 2 for m in motions])
        self.shift = np.array([m.shift for m in motions])
        self.chord = np.array([max(m.chord, 0.2) for m in motions])

    def along(self, time):
        """Arc lengths, speeds, accelerations (M,) at one time: as Motion.along."""
        position = np.clip((time - self.first) / self.tick, 0.0, self.last)
        k = position.astype(int)
        s, speed, _ = self.log[:, self.rows, k]
        s_next, speed_next, _ = self.log[:, self.rows, k + 1]
        acceleration = self.log[2, self.rows, k]
        return hermite(position - k, s, s_next, speed, speed_next, self.tick) + (acceleration,)

    def _at(self, s):
        position = s / self.step
        k = np.clip(np.floor(position).astype(int), 0, self.final)
        u = (position - k)[:, None]
        return self.points[self.rows, k] * (1 - u) + self.points[self.rows, k + 1] * u

    def sticks(self, s, length):
        """Middle (M, 2) and heading (M,) of sticks whose ends lie on the paths."""
        front, rear = self._at(s + length / 2), self._at(s - length / 2)
        along = front - rear
        return (front + rear) / 2, np.arctan2(along[:, 1], along[:, 0])

    def poses(self, time):
        """Centres (M, 2) and headings (M,)."""
        return self.sticks(self.along(time)[0] - self.shift, self.chord)


def hermite(u, s0, s1, v0, v1, step):
    """Position and speed at the share u of a step between two instants (cubic)."""
    m0, m1 = v0 * step, v1 * step
    s = (
        s0 * (1 + 2 * u) * (1 - u) ** 2
        + m0 * u * (1 - u) ** 2
        + s1 * u**2 * (3 - 2 * u)
        + m1 * u**2 * (u - 1)
    )
    speed = (
        6 * u * (u - 1) * (s0 - s1) + m0 * (1 - 4 * u + 3 * u**2) + m1 * u * (3 * u - 2)
    ) / step
    return s, speed


class Traffic:
    """Everything that may move, over the whole scene; time in seconds from the first keyframe.

    agents      list of Agent; an agent's instance number is its place in the list plus 1
    ego         Motion of the middle between the ego's axles
    ego_drive   what the ego's driver did
    kinds       the ego's turns at the junctions on its way
    """

    def __init__(self, agents, ego, ego_drive, kinds):
        self.agents, self.ego, self.ego_drive, self.kinds = agents, ego, ego_drive, kinds
        self.lean = None  # sensors.body.Lean of the ego's body; None = it stands level
        self._movers = _Movers(agents)
        still = [(k + 1, agent) for k, agent in enumerate(agents) if agent.motion is None]
        self._still = [_state(agent, k, agent.pose) for k, agent in still]
        self._still_xy = np.array([agent.pose[:2] for _, agent in still]).reshape(-1, 2)

    def world_from_ego(self, time):
        """(4, 4): base_link, on the ground under the rear axle, which rolls along the path and
        leans with the body."""
        s, _, _ = self.ego.along(time)
        rear, yaw = self.ego.path.chord(s - EGO_WHEELBASE_M / 2, 1.0)
        level = rigid_from_yaw(float(yaw), (float(rear[0]), float(rear[1]), 0.0))
        return level if self.lean is None else level @ self.lean.ego_from_body(time)

    def states(self, time, reach_m=110.0):
        """ObjectState of every agent within `reach_m` of the ego, by instance."""
        ego = self.world_from_ego(time)[:2, 3]
        near = np.hypot(*(self._still_xy - ego).T) < reach_m
        states = [state for state, keep in zip(self._still, near) if keep]
        movers = self._movers
        if len(movers.rows):
            s, speed, acceleration = movers.along(time)
            centre, yaw = movers.sticks(s - movers.shift, movers.chord)
            velocity = (movers.poses(time + 0.02)[0] - movers.poses(time - 0.02)[0]) / 0.04
            bend = (
                movers.sticks(s - movers.shift + 1.5, 1.0)[1]
                - movers.sticks(s - movers.shift - 1.5, 1.0)[1]
                + np.pi
            ) % (2 * np.pi) - np.pi
            steer = np.arctan(bend / 3.0 * movers.chord)
            for k in np.flatnonzero(np.hypot(*(centre - ego).T) < reach_m):
                agent = self.agents[movers.instances[k] - 1]
                walks = KINDS[agent.look.kind].class_name == 'pedestrian'
                states.append(
                    _state(
                        agent,
                        movers.instances[k],
                        (*centre[k], yaw[k]),
                        tuple(velocity[k].tolist()),
                        0.0 if walks or agent.role == 'towed' else float(steer[k]),
                        float(s[k] * 2 * np.pi / STRIDE_M if walks else s[k] / WHEEL_RADIUS_M),
                        not walks and bool(acceleration[k] < -0.4 or speed[k] < 0.1),
                    )
                )
        return sorted(states, key=lambda state: state.instance)


def _state(agent, instance, pose, velocity=(0.0, 0.0), steer=0.0, phase=0.0, braking=False):
    look, spec = agent.look, KINDS[agent.look.kind]
    x, y, yaw = (float(value) for value in pose)
    return ObjectState(
        instance,
        spec.class_name,
        spec.category,
        look.style,
        look.colour_name,
        look.colour,
        look.size,
        rigid_from_yaw(yaw, (x, y, 0.0)),
        velocity,
        steer,
        phase,
        braking,
        look.has_rider,
    )
