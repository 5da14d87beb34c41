"""A skill that the base checkpoint lacks: where in the picture a shape is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unidiff.data.sources.scenes import (
    GRID_LINES,
    Scene,
    render_scene,
    sample_scene,
    scene_generator,
)
from unidiff.plugins import DemoExample, Example, LoRADefaults

from .task import VQA, shown_question

PLACES = ("left", "middle", "right")
QUESTION = "is the {thing} on the left, in the middle or on the right?"
_SPLITS = {"train": "train", "test": "unseen"}
_FIRST_SEED = 20_000_000  # far from the scenes of training and of other questions


class Places(VQA):
    """Left, middle or right: relations are in the base's training, places are not."""

    name = "vqa_places"
    summary = "Say in which third of a picture a shape is."
    decoding = {**VQA.decoding, "max_new_tokens": 4, "block_length": 4}
    lora = LoRADefaults(r=16, alpha=32, steps=400, batch_size=32, learning_rate=2e-3)
    is_in_base = False

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Generated scenes, each place equally often; "test": combinations never trained on."""
        if split not in _SPLITS:
            raise ValueError(f"split must be one of {sorted(_SPLITS)}, got {split!r}")
        number = (8000 if split == "train" else 1000) if limit is None else limit
        return _examples(_SPLITS[split], number)

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """A question about each place."""
        asked = self.dataset("test", 3 * (seed + 1))[-3:]
        return [shown_question(one["image"], one["question"], one["answer"]) for one in asked]


def _examples(split: str, number: int) -> list[Example]:
    """`number` questions, the places in turn."""
    examples: list[Example] = []
    seed = _FIRST_SEED
    while len(examples) < number:
        rng = scene_generator(split, seed)
        scene = sample_scene(rng, split)
        found = _asked(scene, PLACES[len(examples) % len(PLACES)], rng)
        if found is not None:
            examples.append(found)
        seed += 1
    return examples


def _asked(scene: Scene, place: str, rng: np.random.Generator) -> Mapping[str, Any] | None:
    """A question about a shape in that place; None if no shape is there."""
    there = [item for item in scene.objects if place_of(item.column) == place]
    if not there:
        return None
    item = there[int(rng.integers(len(there)))]
    return {
        "image": render_scene(scene),
        "question": QUESTION.format(thing=item.name),
        "answer": place,
    }


def place_of(column: float) -> str:
    """The third of the picture whose middle is nearest to a column in px."""
    return PLACES[int(np.abs(np.array(GRID_LINES) - column).argmin())]
