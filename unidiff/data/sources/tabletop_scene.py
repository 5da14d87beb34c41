"""A square table with a hand, two coloured discs and sometimes a puck: state, physics, picture.

Knows nothing of episodes, experts, tokens or models. Lengths are in table widths, x points right
and y points down, exactly as columns and rows of the picture. Physics in plain floats (arrays of
two numbers would be slower), pictures in numpy.

Source: own derivation; tested in tests/data/sources/test_tabletop.py.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Point = tuple[float, float]

TASKS = ("reach", "push")
IMAGE_SIZE = 32
MAX_STEP = 0.07  # table widths per step at action 1
HAND_RADIUS = 2.2 / IMAGE_SIZE
PUCK_RADIUS = 3.2 / IMAGE_SIZE
TARGET_RADIUS = 4.0 / IMAGE_SIZE
CONTACT_DISTANCE = HAND_RADIUS + PUCK_RADIUS
FRICTION = 1.0  # Coulomb: motion within 45 degrees of the contact normal carries the puck along
EVALUATION_SEED_START = 1_000_000  # training seeds lie in [0, this), evaluation seeds above
NUM_SUBSTEPS = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 210, 40),
}
_TABLE = (150, 142, 130)
_RIM = (30, 26, 26)
_HAND = (255, 255, 255)
_PUCK = (62, 62, 70)


@dataclass(frozen=True)
class Scene:
    """Everything that is on the table: the full state of the world.

    Attributes:
        task: "reach" or "push".
        hand: (x, y) of the hand's centre, in [0, 1].
        puck: (x, y) of the puck's centre, None in the task `reach`.
        targets: the centres of the two discs.
        colours: the names of their colours, different from each other.
        goal: 0 or 1, the disc that the instruction names.
    """

    task: str
    hand: Point
    puck: Point | None
    targets: tuple[Point, Point]
    colours: tuple[str, str]
    goal: int

    def with_goal(self, colour: str) -> "Scene":
        """The same table with the disc of another colour as the goal.

        Raises:
            ValueError: if no disc on the table has that colour.
        """
        if colour not in self.colours:
            raise ValueError(f"expected one of the colours {self.colours}; got {colour=}")
        return replace(self, goal=self.colours.index(colour))


def check_task(task: str) -> None:
    """Refuse a name that is not a task.

    Raises:
        ValueError: if `task` is not one of `TASKS`.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {TASKS}; got {task=}")


def _segment_distance(point: Point, start: Point, end: Point) -> float:
    """Distance from a point to the segment between two different points."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    share = (point[0] - start[0]) * along_x + (point[1] - start[1]) * along_y
    share = min(1.0, max(0.0, share / (along_x**2 + along_y**2)))
    return math.dist(point, (start[0] + share * along_x, start[1] + share * along_y))


def _is_fair(hand: Point, puck: Point | None, targets: tuple[Point, Point]) -> bool:
    """True if neither disc lies on the way to the other and nothing is in place already."""
    mover = hand if puck is None else puck
    if math.dist(*targets) < 0.42 or min(math.dist(mover, t) for t in targets) < 0.3:
        return False
    clearance = TARGET_RADIUS + 0.06
    if _segment_distance(targets[1], mover, targets[0]) < clearance:
        return False
    if _segment_distance(targets[0], mover, targets[1]) < clearance:
        return False
    if puck is None:
        return True
    # A hand exactly between puck and disc would have to choose a side at random: leave that out.
    bearing = math.atan2(hand[1] - puck[1], hand[0] - puck[0])
    for target in targets:
        ahead = math.atan2(target[1] - puck[1], target[0] - puck[0])
        if abs(math.remainder(bearing - ahead, math.tau)) < math.radians(35):
            return False
    return math.dist(hand, puck) > CONTACT_DISTANCE + 0.06


def sample_scene(task: str, seed: int) -> Scene:
    """A table drawn from a seed: the same seed and task always give the same table.

    Args:
        task: "reach" or "push".
        seed: integer >= 0; below `EVALUATION_SEED_START` for training, else for evaluation.

    Raises:
        ValueError: if the task is unknown or the seed is negative.
    """
    check_task(task)
    if seed < 0:
        raise ValueError(f"seed must be >= 0; got {seed=}")
    rng = np.random.default_rng((seed, TASKS.index(task)))
    names = rng.permutation(list(COLOURS))[:2]
    while True:
        x_1, y_1, x_2, y_2 = rng.uniform(0.15, 0.85, 4).tolist()
        hand_x, hand_y = rng.uniform(0.1, 0.9, 2).tolist()
        puck_x, puck_y = rng.uniform(0.32, 0.68, 2).tolist()
        puck = (puck_x, puck_y) if task == "push" else None
        if _is_fair((hand_x, hand_y), puck, ((x_1, y_1), (x_2, y_2))):
            break
    colours = (str(names[0]), str(names[1]))
    return Scene(task, (hand_x, hand_y), puck, ((x_1, y_1), (x_2, y_2)), colours, 0)


def _clamp(point: Point, margin: float) -> Point:
    """The nearest point that keeps a margin to the four walls."""
    x, y = point
    return (min(1 - margin, max(margin, x)), min(1 - margin, max(margin, y)))


def _resolve_contact(hand: Point, puck: Point, motion: Point) -> tuple[Point, Point]:
    """Hand and puck after the hand moved by `motion`: the puck yields, or at a wall the hand."""
    off_x, off_y = puck[0] - hand[0], puck[1] - hand[1]
    distance = math.hypot(off_x, off_y)
    if distance >= CONTACT_DISTANCE:
        return hand, puck
    normal_x, normal_y = (off_x / distance, off_y / distance) if distance > 1e-9 else (1.0, 0.0)
    overlap = CONTACT_DISTANCE - distance
    forward = motion[0] * normal_x + motion[1] * normal_y
    slide_x, slide_y = motion[0] - forward * normal_x, motion[1] - forward * normal_y
    slide = math.hypot(slide_x, slide_y)
    grip = min(1.0, FRICTION * overlap / slide) if slide > 1e-12 else 0.0
    moved_x = puck[0] + overlap * normal_x + grip * slide_x
    moved_y = puck[1] + overlap * normal_y + grip * slide_y
    puck = _clamp((moved_x, moved_y), PUCK_RADIUS)
    distance = math.dist(hand, puck)
    if 1e-9 < distance < CONTACT_DISTANCE - 1e-6:
        back = CONTACT_DISTANCE / distance
        hand_x = puck[0] + (hand[0] - puck[0]) * back
        hand_y = puck[1] + (hand[1] - puck[1]) * back
        hand = _clamp((hand_x, hand_y), HAND_RADIUS)
    return hand, puck


def advance(scene: Scene, action_x: float, action_y: float) -> Scene:
    """The table one step later; actions are clipped to [-1, 1] and scaled by `MAX_STEP`.

    Quasi-static: nothing moves unless the hand does. The overlap of hand and puck is given to the
    puck along the contact normal; sideways motion of the hand drags it with Coulomb friction.
    """
    step_x = min(1.0, max(-1.0, action_x)) * MAX_STEP
    step_y = min(1.0, max(-1.0, action_y)) * MAX_STEP
    if scene.puck is None:
        hand = _clamp((scene.hand[0] + step_x, scene.hand[1] + step_y), HAND_RADIUS)
        return replace(scene, hand=hand)
    hand, puck = scene.hand, scene.puck
    motion = (step_x / NUM_SUBSTEPS, step_y / NUM_SUBSTEPS)
    for _ in range(NUM_SUBSTEPS):
        hand = _clamp((hand[0] + motion[0], hand[1] + motion[1]), HAND_RADIUS)
        hand, puck = _resolve_contact(hand, puck, motion)
    return replace(scene, hand=hand, puck=puck)


def _paint_disc(picture: np.ndarray, centre: Point, radius: float, colour: Any) -> None:
    """Blend an antialiased disc into a float picture; centre and radius in table widths."""
    x, y, radius = centre[0] * IMAGE_SIZE, centre[1] * IMAGE_SIZE, radius * IMAGE_SIZE
    top, left = max(0, int(y - radius - 1)), max(0, int(x - radius - 1))
    patch = picture[top : int(y + radius + 2), left : int(x + radius + 2)]
    rows = np.arange(top, top + patch.shape[0]) + (0.5 - y)
    columns = np.arange(left, left + patch.shape[1]) + (0.5 - x)
    distance = np.sqrt(rows[:, None] ** 2 + columns**2)
    cover = np.clip(radius + 0.5 - distance, 0.0, 1.0)[:, :, None]
    patch += cover * (np.asarray(colour, np.float64) - patch)


def render_scene(scene: Scene) -> np.ndarray:
    """The table from above: (32, 32, 3) uint8, antialiased; puck above discs, hand above all."""
    picture = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3))
    picture[:] = _TABLE
    for target, colour in zip(scene.targets, scene.colours, strict=True):
        _paint_disc(picture, target, TARGET_RADIUS, COLOURS[colour])
    if scene.puck is not None:
        _paint_disc(picture, scene.puck, PUCK_RADIUS, _RIM)
        _paint_disc(picture, scene.puck, PUCK_RADIUS - 1 / IMAGE_SIZE, _PUCK)
    _paint_disc(picture, scene.hand, HAND_RADIUS, _RIM)
    _paint_disc(picture, scene.hand, HAND_RADIUS - 0.8 / IMAGE_SIZE, _HAND)
    return (picture + 0.5).astype(np.uint8)
