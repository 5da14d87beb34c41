"""Changes of drawn scenes: an instruction, the scene before it and the scene after it.

Four kinds: `recolour`, `reshape`, `remove` and `move` by one line of the 3 x 3 arrangement. In
training neither scene holds an unseen combination of objects; in the test split the scene before
holds one. Knows geometry and words; knows nothing of models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unidiff.data.sources.scenes import (
    COLOURS,
    GRID_LINES,
    MIN_GAP,
    SHAPES,
    SIZE,
    Scene,
    SceneObject,
    sample_scene,
    scene_generator,
)

from .pictures import FIRST_SEEDS, SCENE_SPLITS

MOST_OBJECTS = 3
STEP = float(GRID_LINES[1] - GRID_LINES[0])  # px, one line of the arrangement
DIRECTIONS = {"up": (-STEP, 0.0), "down": (STEP, 0.0), "left": (0.0, -STEP), "right": (0.0, STEP)}
PHRASES = {
    "recolour": ("make the {0} {1}", "paint the {0} {1}", "change the {0} to {1}"),
    "reshape": ("make the {0} a {1}", "turn the {0} into a {1}"),
    "remove": ("remove the {0}", "take away the {0}"),
    "move": ("move the {0} {1}", "shift the {0} {1}"),
}
_TRIES = 100


@dataclass(frozen=True)
class Edit:
    """One change.

    Attributes:
        kind: one of `PHRASES`.
        instruction: what the user says.
        before: the scene as it is.
        after: the scene as it shall be.
    """

    kind: str
    instruction: str
    before: Scene
    after: Scene


def sample_edit(split: str, number: int, kind: str | None = None) -> Edit:
    """The edit of this number in a split, "train" or "test".

    Args:
        split: whose scenes.
        number: decides everything.
        kind: one of `PHRASES`; drawn when None.

    Raises:
        ValueError: if split or kind are unknown, or no scene allows the edit.
    """
    if split not in SCENE_SPLITS:
        raise ValueError(f"split must be one of {sorted(SCENE_SPLITS)}, got {split!r}")
    if kind is not None and kind not in PHRASES:
        raise ValueError(f"kind must be one of {sorted(PHRASES)} or None, got {kind!r}")
    rng = scene_generator(SCENE_SPLITS[split], FIRST_SEEDS["editing"] + number)
    for _ in range(_TRIES):
        chosen = tuple(PHRASES)[rng.integers(len(PHRASES))] if kind is None else kind
        edit = _try_edit(rng, split, chosen)
        if edit is not None:
            return edit
    raise ValueError(f"no scene for an edit with {kind=} in {_TRIES} draws")


def _try_edit(rng: np.random.Generator, split: str, kind: str) -> Edit | None:
    """An edit of a fresh scene, or None where the draw does not allow it."""
    fewest = 2 if split == "test" or kind == "remove" else 1
    before = sample_scene(rng, SCENE_SPLITS[split], int(rng.integers(fewest, MOST_OBJECTS + 1)))
    number = int(rng.integers(len(before.objects)))
    old = before.objects[number]
    word, new = _CHANGES[kind](old, rng)
    others = [item for index, item in enumerate(before.objects) if index != number]
    if new is not None and not _fits(new, others):
        return None
    objects = others if new is None else [*others[:number], new, *others[number:]]
    after = Scene(tuple(objects), before.background)
    if split == "train" and after.is_unseen:
        return None
    phrases = PHRASES[kind]
    phrase = phrases[int(rng.integers(len(phrases)))]
    return Edit(kind, phrase.format(old.name, word), before, after)


def _recoloured(old: SceneObject, rng: np.random.Generator) -> tuple[str, SceneObject]:
    """Another colour."""
    colour = _other(tuple(COLOURS), old.colour, rng)
    return colour, replace(old, colour=colour)


def _reshaped(old: SceneObject, rng: np.random.Generator) -> tuple[str, SceneObject]:
    """Another shape."""
    shape = _other(SHAPES, old.shape, rng)
    return shape, replace(old, shape=shape)


def _removed(old: SceneObject, rng: np.random.Generator) -> tuple[str, None]:
    """Nothing."""
    del old, rng
    return "", None


def _moved(old: SceneObject, rng: np.random.Generator) -> tuple[str, SceneObject]:
    """Another place."""
    word = tuple(DIRECTIONS)[rng.integers(len(DIRECTIONS))]
    down, right = DIRECTIONS[word]
    return word, replace(old, row=old.row + down, column=old.column + right)


_Change = Callable[[SceneObject, np.random.Generator], tuple[str, SceneObject | None]]
_CHANGES: dict[str, _Change] = {
    "recolour": _recoloured,
    "reshape": _reshaped,
    "remove": _removed,
    "move": _moved,
}


def _other(words: Sequence[str], old: str, rng: np.random.Generator) -> str:
    """One of the words that is not the old one."""
    others = [word for word in words if word != old]
    return others[int(rng.integers(len(others)))]


def _fits(new: SceneObject, others: Sequence[SceneObject]) -> bool:
    """Whether an object lies inside the picture, apart from the others and named differently."""
    ends = (GRID_LINES[0] - 2.0, GRID_LINES[-1] + 2.0)
    if not all(ends[0] <= place <= ends[1] for place in (new.row, new.column)):
        return False
    gaps = [max(abs(new.row - one.row), abs(new.column - one.column)) for one in others]
    is_apart = all(gap >= SIZE + MIN_GAP for gap in gaps)
    return is_apart and new.name not in {one.name for one in others}
