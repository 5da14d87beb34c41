"""Editing: a picture and an instruction in, the changed picture out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature

from unidiff.cli import samplers
from unidiff.data.blocks import TrainingRow, blocks_row
from unidiff.data.sources.scenes import render_scene
from unidiff.plugins import ChatTask, DemoExample, Example, LoRADefaults, Metric, shown, user

from .edits import PHRASES, Edit, sample_edit
from .examples import MadeExamples, check_split
from .judges import edit_success, seen_objects
from .quality import psnr_to

PROB_WORDS_DROPPED = 0.05
PROB_ALL_DROPPED = 0.05
PICTURE_GUIDANCE = 1.2
WORDS_GUIDANCE = 1.5
_NUMBER = {"train": 40_000, "test": 1000}


class Editing(ChatTask):
    """The user says what to change and shows a picture; the answer is a picture.

    The instruction stands first: every code of the answer is then at the same distance from the
    code at its place in the picture, however long the instruction is.

    Guidance has two links: from nothing to the picture, and from the picture to the instruction.
    `guidance_scale=[a, b]` gives each a scale of its own.

    Source: two scales as in InstructPix2Pix, arXiv 2211.09800, equation 3.
    """

    name = "editing"
    summary = "Change a picture as an instruction says."
    is_in_base = False
    adapter = Path(__file__).parent / "adapters" / "editing"
    modalities = frozenset({"text", "image"})
    columns = {
        "image": "the picture",
        "instruction": "what to change",
        "edited": "the changed picture",
    }
    lora = LoRADefaults(r=32, alpha=64, learning_rate=3e-3, steps=2000, batch_size=16)
    wanted = "image"

    @property
    def decoding(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The measured options of drawing scenes, with a scale for each condition.

        The weaker prompts are read in every second step.
        """
        scales = [PICTURE_GUIDANCE, WORDS_GUIDANCE]
        measured = {**samplers.drawing(), "revision": None}
        return {**measured, "guidance_scale": scales, "guidance_refresh": 2}

    def messages(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The user says what to change and shows the picture."""
        return [user(str(example["instruction"]), shown(example["image"]))]

    def answer(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The changed picture."""
        return [shown(example["edited"])]

    def weaker(self, processor: Any, example: Example) -> Sequence[BatchFeature]:
        """A request that says nothing, and one that shows the picture and asks for nothing."""
        unsaid = processor.build([user(_NOTHING, shown(example["image"]))], want="image")
        only_picture = {name: unsaid[name] for name in ("input_ids", "attention_mask")}
        return [processor.for_dropped_condition(), BatchFeature(only_picture)]

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """The request with its answer; at times without the words, at times without the picture."""
        draw = rng.random()
        turn = self.messages(example)[0]
        if draw > 1.0 - PROB_ALL_DROPPED:
            turn = user(_NOTHING)
        elif draw > 1.0 - PROB_ALL_DROPPED - PROB_WORDS_DROPPED:
            turn = user(_NOTHING, shown(example["image"]))
        answer = {"role": "assistant", "content": self.answer(example)}
        sequence = processor.encoder.conversation(processor.coded([turn, answer]))
        return blocks_row(sequence, processor.layout, self.blocks, rng)

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Scenes to change; those of "test" hold a combination that training never shows."""
        check_split(split)
        number = _NUMBER[split] if limit is None else limit
        return MadeExamples(number, lambda index: _example(sample_edit(split, index)))

    def metrics(self) -> Mapping[str, Metric]:
        """Share of right scenes, and how near the picture is to the wanted one."""
        return {"edit_success": edit_success, "psnr_db": psnr_to("edited")}

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """One edit of each kind."""
        first = 1000 * (seed + 1)
        return [_shown(sample_edit("test", first, kind)) for kind in PHRASES]


_NOTHING: Mapping[str, Any] = {"type": "uncond"}


def _example(edit: Edit) -> Example:
    """The pictures before and after, and the instruction."""
    return {
        "image": render_scene(edit.before),
        "instruction": edit.instruction,
        "edited": render_scene(edit.after),
    }


def _shown(edit: Edit) -> DemoExample:
    """An edit for the demonstration: before, result, what was wanted."""
    example = _example(edit)
    return DemoExample(
        example,
        edit.instruction,
        truth=", ".join(sorted(item.name for item in edit.after.objects)) or "nothing",
        is_right=lambda result: bool(edit_success([result], [example])[0]),
        said=lambda result: f"read back: {seen_objects(result)}",
        pictures=lambda result: [example["image"], np.asarray(result), example["edited"]],
        labels=("given", "changed", "wanted"),
        section="Editing",
    )
