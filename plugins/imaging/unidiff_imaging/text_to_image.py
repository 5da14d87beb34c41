"""Text to image: a sentence in, a picture out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unidiff.cli import samplers
from unidiff.data.blocks import TrainingRow, blocks_row
from unidiff.data.sources.garments import (
    CLASS_NAMES,
    caption_names_class,
    draw_drawing_request,
    with_article,
)
from unidiff.data.sources.held_out import held_out
from unidiff.data.sources.scene_language import drawing_request
from unidiff.data.sources.scenes import MAX_OBJECTS, Scene, render_scene
from unidiff.data.tasks import PROB_CONDITION_DROPPED
from unidiff.plugins import ChatTask, DemoExample, Example, LoRADefaults, Metric, shown, user

from .examples import MadeExamples, check_split
from .judges import garment_judge, seen_objects, text_match
from .pictures import photograph, scene_of
from .pixels import as_pixels
from .quality import distance_to

_NUMBER = {"train": 40_000, "test": 2000}
_MOST_NAMED = 2  # objects of a scene that a request names
_DRAWINGS = 10


class TextToImage(ChatTask):
    """The user asks for a picture; garments and scenes are decoded as the suite measures each."""

    name = "text_to_image"
    summary = "Draw what a sentence says."
    modalities = frozenset({"text", "image"})
    columns = {"text": "what to draw", "image": "the picture"}
    lora = LoRADefaults(steps=300)
    wanted = "image"

    @property
    def decoding(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The options of drawing scenes."""
        return samplers.drawing()

    def options_for(self, processor: Any, example: Example) -> Mapping[str, Any]:
        """The options of drawing garments where the text names one."""
        del processor
        is_garment = caption_names_class(str(example["text"])) is not None
        return samplers.drawing("garment") if is_garment else self.decoding

    def messages(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The user asks."""
        return [user(str(example["text"]))]

    def answer(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The picture."""
        return [shown(example["image"])]

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """The request with its picture; at times a request that says nothing, for guidance."""
        is_dropped = rng.random() > 1.0 - PROB_CONDITION_DROPPED
        turn = user({"type": "uncond"}) if is_dropped else self.messages(example)[0]
        answer = {"role": "assistant", "content": self.answer(example)}
        sequence = processor.encoder.conversation(processor.coded([turn, answer]))
        return blocks_row(sequence, processor.layout, self.blocks, rng)

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Garments in the first half, scenes of one or two objects in the second."""
        check_split(split)
        number = _NUMBER[split] if limit is None else limit
        garments = -(-number // 2)

        def make(index: int) -> Example:
            is_garment = index < garments
            return _garment(split, index) if is_garment else _scene(split, index - garments)

        return MadeExamples(number, make)

    def metrics(self) -> Mapping[str, Metric]:
        """Share of pictures that show what was asked, and their distance to the examples'."""
        return {"text_match": text_match, "frechet": distance_to("image")}

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Every garment, and as many scenes that never occur in training."""
        data = held_out(seed)
        rng = data.rng(6)
        labels = rng.permutation(len(CLASS_NAMES))[:_DRAWINGS].tolist()
        shown_garments = [_shown_garment(label, rng) for label in labels]
        scenes, rng = data.choose_scenes(7, _DRAWINGS, num_objects=_MOST_NAMED), data.rng(7)
        return [*shown_garments, *(_shown_scene(scene, rng) for scene in scenes)]


def drawing_sentence(request: str) -> str:
    """The request as training has it: "draw ..." for a noun phrase, a full stop for a garment."""
    words = request.strip().rstrip(".").lower()
    if words.startswith(("a ", "an ", "the ")):
        words = f"draw {words}"
    return words if caption_names_class(words) is None else f"{words}."


def _garment(split: str, index: int) -> Example:
    """A photograph and a request for one of its class."""
    picture, label = photograph(split, index)
    return {"text": draw_drawing_request(label, np.random.default_rng(index)), "image": picture}


def _scene(split: str, index: int) -> Example:
    """A scene of one or two objects and a request that says all that is in it."""
    rng = np.random.default_rng(index)
    number = None if split == "test" else int(rng.integers(1, _MOST_NAMED + 1))
    scene = scene_of(split, "text_to_image", index, number or _MOST_NAMED)
    assert len(scene.objects) <= min(_MOST_NAMED, MAX_OBJECTS)
    return {"text": drawing_request(scene, rng), "image": render_scene(scene)}


def _shown_garment(label: int, rng: np.random.Generator) -> DemoExample:
    """A garment for the demonstration; a network trained on photographs says what it sees."""
    request = draw_drawing_request(label, rng)
    return DemoExample(
        {"text": request},
        request,
        truth=with_article(CLASS_NAMES[label]),
        is_right=lambda result: bool(text_match([result], [{"text": request}])[0]),
        said=lambda result: f"judged: {with_article(_judged(result))}",
        pictures=lambda result: [as_pixels(result)],
        section="Drawing garments",
    )


def _shown_scene(scene: Scene, rng: np.random.Generator) -> DemoExample:
    """A scene for the demonstration; a program reads it back from the pixels."""
    request = drawing_request(scene, rng)
    return DemoExample(
        {"text": request},
        request,
        truth=", ".join(sorted(item.name for item in scene.objects)),
        is_right=lambda result: bool(text_match([result], [{"text": request}])[0]),
        said=lambda result: f"read back: {seen_objects(result)}",
        pictures=lambda result: [as_pixels(result)],
        section="Drawing unseen scenes",
    )


def _judged(result: Any) -> str:
    """The class that the judge sees in a picture."""
    return CLASS_NAMES[int(garment_judge().classify(as_pixels(result)[None])[0])]
