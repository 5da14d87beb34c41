"""An expert for PushT: try a grid of pushes in a copy of the physics, walk to the best, push.

It sees the full state. The T stops at once when nothing pushes it, so positions alone describe the
state and a copy can be set to it. Nothing is drawn by chance: what it does follows from where the T
and the disc are, so that whoever learns from it can know as much.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pusht_geometry import distances_to, normals_of, outline_at, way_around

_CLEARANCE = (
    19.0  # px from the edge to the disc's centre before a push; the disc has a radius of 15
)
_SPACING = 14.0  # px of an edge between two pushes
_ANGLES = (-0.35, 0.0, 0.35)  # radians from the inward normal
_NEAR = 25.0  # px of mean corner distance from the goal: nearer, pushes are slow
_SLOW, _FAST = 4.0, 10.0  # px per step
_MOST_STEPS = 12  # of a push
_STEP_COST = 0.02  # px of mean corner distance that a step is worth
_WAY_COST = 0.003  # px of mean corner distance that a px of the way to a push is worth
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
        reach: pixels of an action of 1.
    """

    def __init__(self, simulator: Any, copy: Any, reach: float) -> None:
        self._simulator, self._copy, self._reach = simulator, copy, reach
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
        goal, disc = outline_at(*self._simulator.goal_pose), self._disc
        outline = outline_at(*pose)
        speed = _SLOW if _mean_distance(outline, goal) < _NEAR else _FAST
        best, best_cost = None, math.inf
        for push in candidates(outline, speed):
            way = _WAY_COST * math.dist(push.start, disc)
            for step, reached in enumerate(self._tried(pose, push), start=1):
                cost = _mean_distance(outline_at(*reached), goal) + _STEP_COST * step + way
                if cost < best_cost:
                    best, best_cost = Push(push.start, push.targets[:step]), cost
        assert best is not None  # a T cannot be so placed that no edge is free
        return best

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


def candidates(outline: np.ndarray, speed: float) -> Iterator[Push]:
    """Pushes at even places of each edge, straight inwards and askew, whose start is free.

    Args:
        outline: (8, 2) of the T.
        speed: px per step.
    """
    normals, after = normals_of(outline), np.roll(outline, -1, axis=0)
    ways = speed * np.arange(1, _MOST_STEPS + 1)[:, None]
    for corner, end, normal in zip(outline, after, normals, strict=True):
        number = max(1, round(math.dist(corner, end) / _SPACING))
        shares = (np.arange(number)[:, None] + 0.5) / number
        for start in corner + shares * (end - corner) + _CLEARANCE * normal:
            on_table = (start > _MARGIN).all() and (start < _TABLE - _MARGIN).all()
            # In the T's inner corners the other edge is nearer.
            if not on_table or distances_to(outline, start[None])[0] < _CLEARANCE - 0.5:
                continue
            inward = math.atan2(-normal[1], -normal[0])
            for angle in _ANGLES:
                direction = (math.cos(inward + angle), math.sin(inward + angle))
                yield Push(start, np.clip(start + ways * direction, 0.0, _TABLE))


def _mean_distance(outline: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of two T's corners, in pixels."""
    return float(np.linalg.norm(outline - other, axis=1).mean())
