"""Drawn scenes: one to four coloured shapes on grey, and the split by unseen combinations.

This module knows geometry and pixels; it knows no language (scene_language) and no reading of
pixels (scene_judge). Coordinates are in pixels, rows downwards, columns to the right; pixel i
covers [i, i + 1), so the image spans [0, 32] x [0, 32].

The split. Two aligned objects form a combination (colour_a, shape_a, relation, colour_b, shape_b)
with relation `left of` or `above` (`right of` and `below` are the same fact read backwards). A
stable hash of its words puts about 15 % of the combinations aside as unseen. A `train` or `seen`
scene holds no unseen combination between any two of its objects; an `unseen` scene holds at least
one, its anchor. `seen` follows the law of `train` and is held out by its own random stream: draw
with `scene_generator(split, seed)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

import numpy as np

IMAGE_SIZE = 32
# Neighbouring hues are at least 40 degrees apart: hue survives blur against a grey background.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "yellow": (235, 215, 30),
    "green": (25, 175, 45),
    "cyan": (25, 200, 220),
    "blue": (40, 60, 230),
    "purple": (190, 40, 210),
}
SHAPES = ("circle", "square", "triangle")
KINDS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
RELATIONS = tuple(OPPOSITE)
SPLITS = ("train", "seen", "unseen")
UNSEEN_SHARE = 0.15
MAX_OBJECTS = 4

# Whole pixels and few levels: what a picture shows is then mostly what can be said about it. With
# continuous places, sizes and greys most of the entropy of an image's codes says nothing.
GRID_LINES = (6, 16, 26)  # centres of the loose 3 x 3 arrangement, in px
SHIFTS = (-1, 1)  # px off the centre, on each axis; keeps the whole object inside the image
SIZE = 8.0  # px, width and height of the bounding box
BACKGROUNDS = (32, 48, 200, 216)  # grey levels
MIN_GAP = 1.5  # px between bounding boxes
ALIGNED = 4.0  # px: largest offset across the relation's axis (same row: <= 2, next: >= 8)
APART = 6.0  # px: smallest offset along the relation's axis
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class SceneObject:
    """One shape: its colour, its centre (of the bounding box) and its size, in px."""

    colour: str
    shape: str
    row: float
    column: float
    size: float

    @property
    def name(self) -> str:
        """The two words that name the object, such as `red circle`."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Objects of pairwise different names on a grey level in 0..255.

    With two objects or more, the first two are the anchor: they are aligned, so one relation
    holds between them.
    """

    objects: tuple[SceneObject, ...]
    background: int

    @property
    def anchor(self) -> tuple[SceneObject, SceneObject] | None:
        """The aligned pair the scene was built around, or None for a single object."""
        return (self.objects[0], self.objects[1]) if len(self.objects) > 1 else None

    @property
    def is_unseen(self) -> bool:
        """Whether any two of its objects form an unseen combination."""
        return any(is_unseen_combination(*pair) for pair in scene_relations(self))


def relation_between(first: SceneObject, second: SceneObject) -> str | None:
    """The relation of `first` to `second`, or None where they are not aligned."""
    down, right = second.row - first.row, second.column - first.column
    if abs(down) <= ALIGNED and abs(right) >= APART:
        return "left of" if right > 0 else "right of"
    if abs(right) <= ALIGNED and abs(down) >= APART:
        return "above" if down > 0 else "below"
    return None


def scene_relations(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """Every true (name, relation, name), both ways round, for all ordered pairs."""
    for first in scene.objects:
        for second in scene.objects:
            relation = relation_between(first, second) if first is not second else None
            if relation is not None:
                yield first.name, relation, second.name


@cache
def is_unseen_combination(first: str, relation: str, second: str) -> bool:
    """Whether `first relation second` is kept out of training; the same read either way round.

    Args:
        first: name such as `red circle`.
        relation: one of RELATIONS.
        second: name such as `blue square`.

    Raises:
        ValueError: if the relation is unknown.
    """
    if relation not in OPPOSITE:
        raise ValueError(f"relation must be one of {RELATIONS}; got {relation=}")
    if relation in ("right of", "below"):
        first, relation, second = second, OPPOSITE[relation], first
    digest = blake2b(f"{first}|{relation}|{second}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < UNSEEN_SHARE * 2**64


@cache
def combinations(unseen: bool) -> tuple[tuple[tuple[str, str], str, tuple[str, str]], ...]:
    """All canonical combinations of one side of the split, as (kind, relation, kind)."""
    return tuple(
        (first, relation, second)
        for first in KINDS
        for second in KINDS
        for relation in ("left of", "above")
        if first != second
        and is_unseen_combination(" ".join(first), relation, " ".join(second)) is unseen
    )


def scene_generator(split: str, seed: int) -> np.random.Generator:
    """The random stream of a split: streams of different splits or seeds never meet.

    Raises:
        ValueError: if the split is unknown.
    """
    _check_split(split)
    return np.random.default_rng([SPLITS.index(split), seed])


def sample_scene(rng: np.random.Generator, split: str, num_objects: int | None = None) -> Scene:
    """A random scene of a split.

    Args:
        rng: source of all randomness; see `scene_generator`.
        split: `train` and `seen` hold no unseen combination, `unseen` has an unseen anchor.
        num_objects: 1 to 4 (2 to 4 for `unseen`); drawn uniformly when None.

    Raises:
        ValueError: if the split or the number of objects is not possible.
    """
    _check_split(split)
    fewest = 2 if split == "unseen" else 1
    if num_objects is None:
        num_objects = int(rng.integers(fewest, MAX_OBJECTS + 1))
    if not fewest <= num_objects <= MAX_OBJECTS:
        raise ValueError(
            f"a scene of split {split!r} has {fewest} to {MAX_OBJECTS} objects; got {num_objects=}"
        )
    objects = None
    while objects is None:
        objects = _try_objects(rng, split, num_objects)
    return Scene(objects=tuple(objects), background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))])


def render_scene(scene: Scene) -> np.ndarray:
    """(32, 32, 3) uint8 picture of the scene, antialiased by 4 x 4 supersampling."""
    image = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), scene.background, dtype=np.float32)
    for item in scene.objects:
        coverage, top, left = shape_coverage(item.shape, item.row, item.column, item.size)
        height, width = coverage.shape
        window = image[top : top + height, left : left + width]
        window += coverage[..., None] * (np.array(COLOURS[item.colour], np.float32) - window)
    return np.rint(image).astype(np.uint8)


def shape_coverage(
    shape: str, row: float, column: float, size: float
) -> tuple[np.ndarray, int, int]:
    """How much of each pixel a shape covers, in the window that holds it.

    Returns:
        (h, w) float32 in [0, 1], and the window's top row and left column in the image.

    Raises:
        ValueError: if the shape is unknown.
    """
    half = size / 2
    top, down = _sample_offsets(row, half)
    left, right = _sample_offsets(column, half)
    down = down[:, None]
    if shape == "circle":
        inside = down * down + right * right <= half * half
    elif shape == "square":
        inside = (np.abs(down) <= half) & (np.abs(right) <= half)
    elif shape == "triangle":  # upright, as wide as high
        inside = (np.abs(right) <= (down + half) / 2) & (down <= half)
    else:
        raise ValueError(f"shape must be one of {SHAPES}; got {shape=}")
    height, width = down.size // _SUPERSAMPLING, right.size // _SUPERSAMPLING
    fine = inside.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING)
    return fine.sum(axis=(1, 3), dtype=np.float32) / _SUPERSAMPLING**2, top, left


def _sample_offsets(centre: float, half: float) -> tuple[int, np.ndarray]:
    """First pixel of the window along one axis, and each sample's offset from the centre."""
    start = max(0, int(np.floor(centre - half)))
    stop = min(IMAGE_SIZE, int(np.ceil(centre + half)))
    samples = np.arange(start * _SUPERSAMPLING, stop * _SUPERSAMPLING, dtype=np.float32)
    return start, (samples + 0.5) / _SUPERSAMPLING - np.float32(centre)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}; got {split=}")


def _try_objects(
    rng: np.random.Generator, split: str, num_objects: int
) -> list[SceneObject] | None:
    """Objects of a scene, or None where the draw ran into a dead end."""
    if num_objects == 1:
        cell = (int(rng.integers(3)), int(rng.integers(3)))
        return [_place(rng, KINDS[rng.integers(len(KINDS))], cell)]
    choices = combinations(split == "unseen")
    first, relation, second = choices[rng.integers(len(choices))]
    near, far = ((0, 1), (1, 2), (0, 2))[rng.integers(3)]
    line = int(rng.integers(3))
    across = relation == "left of"
    cells = [(line, near), (line, far)] if across else [(near, line), (far, line)]
    objects = [_place(rng, first, cells[0]), _place(rng, second, cells[1])]
    if not _is_apart(objects[0], objects[1]):
        return None
    if rng.random() < 0.5:
        objects.reverse()
    for _ in range(num_objects - 2):
        extra = _try_extra(rng, split, objects)
        if extra is None:
            return None
        objects.append(extra)
    return objects


def _try_extra(
    rng: np.random.Generator, split: str, objects: list[SceneObject]
) -> SceneObject | None:
    """One more object that fits beside the others, or None after a few failed draws."""
    for _ in range(20):
        colour, shape = KINDS[rng.integers(len(KINDS))]
        model = objects[rng.integers(len(objects))]
        share = rng.random()  # repeated colours and shapes make counting worth asking
        colour = model.colour if share < 0.3 else colour
        shape = model.shape if share > 0.7 else shape
        extra = _place(rng, (colour, shape), (int(rng.integers(3)), int(rng.integers(3))))
        if all(_may_join(extra, item, split) for item in objects):
            return extra
    return None


def _may_join(extra: SceneObject, item: SceneObject, split: str) -> bool:
    """Whether the two differ in name, do not touch, and respect the split."""
    if extra.name == item.name or not _is_apart(extra, item):
        return False
    relation = relation_between(extra, item)
    if split == "unseen" or relation is None:
        return True
    return not is_unseen_combination(extra.name, relation, item.name)


def _is_apart(first: SceneObject, second: SceneObject) -> bool:
    reach = (first.size + second.size) / 2 + MIN_GAP
    return max(abs(first.row - second.row), abs(first.column - second.column)) >= reach


def _place(rng: np.random.Generator, kind: tuple[str, str], cell: tuple[int, int]) -> SceneObject:
    """An object of this kind near a cell's centre, whole inside the image."""
    row, column = (float(GRID_LINES[line] + SHIFTS[rng.integers(len(SHIFTS))]) for line in cell)
    return SceneObject(colour=kind[0], shape=kind[1], row=row, column=column, size=SIZE)
