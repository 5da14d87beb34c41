"""An expert for PushT: try many pushes in a copy of the physics, walk to the best, push, repeat.

It sees the full state. The T stops at once when nothing pushes it, so positions alone describe the
state and a copy can be set to it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pusht_geometry import normals_of, outline_at, way_around

NUM_CANDIDATES = 120
_CLEARANCE = (
    19.0  # px from the edge to the disc's centre before a push; the disc has a radius of 15
)
_ANGLE_SPREAD = 0.25  # radians around the inward normal
_SPEEDS = (4.0, 8.0, 12.0)  # px per step
_STEPS = (3, 13)  # fewest and most of a push
_STEP_COST = 0.02  # px of mean corner distance that a step is worth
_MARGIN = 20.0  # px that the disc keeps to the table's rim
_TABLE = 512.0
_SETTLED, _MOST_SETTLING = 2.0, 12  # px, steps
_MOVED, _TURNED = 1.5, 0.02  # px, radians: further off its place than that, the T is planned anew


@dataclass(frozen=True)
class Push:
    """Start of the disc and its targets, one a step, in pixels."""

    start: np.ndarray  # (2,)
    targets: np.ndarray  # (n, 2)


class PushTExpert:
    """Called before each step, it returns the next action (2,) in [-1, 1].

    Args:
        simulator: gym-pusht's environment that is being played; read only.
        copy: another one, in which pushes are tried.
        seed: of the candidates.
        reach: pixels of an action of 1.
    """

    def __init__(self, simulator: Any, copy: Any, seed: int, reach: float) -> None:
        self._simulator, self._copy, self._reach = simulator, copy, reach
        self._rng = np.random.default_rng((seed, 2))
        copy.reset(seed=0)
        self._targets = self._plan()

    def __call__(self) -> np.ndarray:
        """The offset of the next target from where the disc is now."""
        return np.clip((next(self._targets) - self._disc) / self._reach, -1.0, 1.0)

    @property
    def _disc(self) -> np.ndarray:
        return np.array(self._simulator.agent.position)

    @property
    def _pose(self) -> np.ndarray:
        """(3,) x, y and angle of the T."""
        block = self._simulator.block
        return np.array([*block.position, block.angle])

    def _plan(self) -> Iterator[np.ndarray]:
        """Targets of the disc, without end; each is computed when it is needed."""
        while True:
            pose = self._pose
            push = self._best_push(pose)
            yield from way_around(outline_at(*pose), self._disc, push.start)
            for _ in range(_MOST_SETTLING):
                if np.linalg.norm(self._disc - push.start) < _SETTLED:
                    break
                yield push.start
            off = np.abs(self._pose - pose)
            if max(off[0], off[1]) < _MOVED and off[2] < _TURNED:
                yield from push.targets

    def _best_push(self, pose: np.ndarray) -> Push:
        """The candidate that brings the T nearest to its goal, cut where it does."""
        goal = outline_at(*self._simulator.goal_pose)
        best, best_cost = None, math.inf
        for _ in range(NUM_CANDIDATES):
            push = self._candidate(pose)
            for step, reached in enumerate(self._tried(pose, push), start=1):
                away = np.linalg.norm(outline_at(*reached) - goal, axis=1).mean()
                if away + _STEP_COST * step < best_cost:
                    best_cost = away + _STEP_COST * step
                    best = Push(push.start, push.targets[:step])
        assert best is not None
        return best

    def _candidate(self, pose: np.ndarray) -> Push:
        """A push at a random place of the outline, roughly inwards."""
        outline = outline_at(*pose)
        normals, after = normals_of(outline), np.roll(outline, -1, axis=0)
        while True:
            edge = int(self._rng.integers(len(outline)))
            share = self._rng.uniform(0.0, 1.0)
            contact = outline[edge] + share * (after[edge] - outline[edge])
            start = contact + _CLEARANCE * normals[edge]
            if (start > _MARGIN).all() and (start < _TABLE - _MARGIN).all():
                break
        inward = math.atan2(-normals[edge][1], -normals[edge][0])
        angle = inward + self._rng.normal(0.0, _ANGLE_SPREAD)
        ways = np.arange(1, self._rng.integers(_STEPS[0], _STEPS[1] + 1) + 1)
        ways = self._rng.choice(_SPEEDS) * ways
        targets = start + ways[:, None] * (math.cos(angle), math.sin(angle))
        return Push(start, np.clip(targets, 0.0, _TABLE))

    def _tried(self, pose: np.ndarray, push: Push) -> Iterator[np.ndarray]:
        """(3,) pose of the T after each step of a push in the copy."""
        copy, dt = self._copy, self._copy.dt
        block, disc = copy.block, copy.agent
        # The angle first: it turns the T about its centre of gravity and so moves its position.
        block.angle, block.position = float(pose[2]), (float(pose[0]), float(pose[1]))
        block.velocity, block.angular_velocity = (0.0, 0.0), 0.0
        disc.position, disc.velocity = tuple(push.start.tolist()), (0.0, 0.0)
        copy.space.reindex_shapes_for_body(block)
        copy.space.reindex_shapes_for_body(disc)
        for x, y in push.targets.tolist():
            for _ in range(round(1 / (dt * copy.control_hz))):
                (disc_x, disc_y), (speed_x, speed_y) = disc.position, disc.velocity
                speed_x += (copy.k_p * (x - disc_x) - copy.k_v * speed_x) * dt
                speed_y += (copy.k_p * (y - disc_y) - copy.k_v * speed_y) * dt
                disc.velocity = (speed_x, speed_y)
                copy.space.step(dt)
            yield np.array([*block.position, block.angle])
