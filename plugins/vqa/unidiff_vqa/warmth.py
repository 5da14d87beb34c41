"""A skill that the base checkpoint lacks: does a picture hold a warm colour?"""

from collections.abc import Sequence

from unidiff.data.sources.scenes import Scene, render_scene, sample_scene, scene_generator
from unidiff.plugins import DemoExample, Example, LoRADefaults

from .task import VQA, shown_question

WARM = frozenset({"red", "yellow"})
ANSWERS = ("yes", "no")
QUESTION = "is there a warm colour in the picture?"
_SPLITS = {"train": "train", "test": "unseen"}
_FIRST_SEED = 30_000_000  # far from the scenes of training and of other questions


class Warmth(VQA):
    """Yes or no, on a canvas that can hold nothing else; the base has never heard of warm."""

    name = "vqa_warmth"
    summary = "Say whether a picture holds a warm colour."
    lora = LoRADefaults(r=8, alpha=16, steps=120, batch_size=32, learning_rate=3e-3)
    is_in_base = False

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Generated scenes, both answers in turn; "test": combinations never trained on."""
        if split not in _SPLITS:
            raise ValueError(f"split must be one of {sorted(_SPLITS)}, got {split!r}")
        number = (3000 if split == "train" else 1000) if limit is None else limit
        examples: list[Example] = []
        seed = _FIRST_SEED
        while len(examples) < number:
            scene = sample_scene(scene_generator(_SPLITS[split], seed), _SPLITS[split])
            if is_warm(scene) == (len(examples) % 2 == 0):
                examples.append(_example(scene))
            seed += 1
        return examples

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Four scenes."""
        asked = self.dataset("test", 4 * (seed + 1))[-4:]
        return [shown_question(one["image"], one["question"], one["answer"]) for one in asked]


def is_warm(scene: Scene) -> bool:
    """Whether an object is red or yellow."""
    return any(item.colour in WARM for item in scene.objects)


def _example(scene: Scene) -> Example:
    """The question about one scene."""
    answer = ANSWERS[0] if is_warm(scene) else ANSWERS[1]
    return {
        "image": render_scene(scene),
        "question": QUESTION,
        "answer": answer,
        "choices": list(ANSWERS),
    }
