"""A picture and a question in, an answer out: free, or one of several given ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unidiff.data.sources.garments import draw_question
from unidiff.data.sources.held_out import held_out, scene_pictures
from unidiff.data.sources.scene_facts import QUESTION_KINDS
from unidiff.data.sources.scene_language import (
    available_answers,
    balanced_questions,
    sample_question,
)
from unidiff.data.sources.scenes import render_scene, sample_scene, scene_generator
from unidiff.plugins import ChatTask, DemoExample, Example, Metric, shown, user

from .accuracy import normalised, vqa_accuracy

PHOTOGRAPHS = 6  # of the demonstration
_GARMENT_KINDS = ("name", "category", "footwear", "identity", "identity", "name")
_SPLITS = {"train": "train", "test": "unseen"}
_SCENES_PER_QUESTION = 4
_FEWEST_SCENES = 400


class VQA(ChatTask):
    """A question about a picture; "choices" in an example allows only these answers."""

    name = "vqa"
    summary = "Answer a question about a picture."
    modalities = frozenset({"text", "image"})
    columns = {"image": "the picture", "question": "what is asked", "answer": "what is right"}
    decoding = {
        "unmasking_strategy": "entropy_bound",
        "entropy_bound": 0.4,
        "block_length": 8,
        "max_new_tokens": 48,
        "do_sample": False,
    }

    def messages(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The user shows the picture and asks."""
        return [user(shown(example["image"]), str(example["question"]))]

    def answer(self, example: Example) -> str:
        """What is right; of several answers the first."""
        return answers_of(example)[0]

    def options_for(self, processor: Any, example: Example) -> Mapping[str, Any]:
        """The task's options; with choices, one canvas that can only become one of them."""
        if not example.get("choices"):
            return self.decoding
        return {**self.decoding, **choice_options(processor.tokenizer, example["choices"])}

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Questions about scenes, as many of each kind; "test": combinations never trained on."""
        if split not in _SPLITS:
            raise ValueError(f"split must be one of {sorted(_SPLITS)}, got {split!r}")
        per_kind = max(1, (2000 if limit is None else limit) // len(QUESTION_KINDS))
        number = max(_FEWEST_SCENES, _SCENES_PER_QUESTION * per_kind)
        name = _SPLITS[split]
        scenes = [sample_scene(scene_generator(name, seed), name, 3) for seed in range(number)]
        asked = balanced_questions(
            scenes, np.random.default_rng(per_kind), per_kind, about_anchor=True
        )
        examples = [
            {
                "image": render_scene(scenes[index]),
                "question": one.text,
                "answer": one.answer,
                "kind": one.kind,
            }
            for index, one in asked
        ]
        return examples[:limit]

    def metrics(self) -> Mapping[str, Metric]:
        """VQA accuracy, and plain equality."""
        return {
            "vqa_accuracy": lambda said, examples: vqa_accuracy(
                said, [answers_of(one) for one in examples]
            ),
            "exact": exact,
        }

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Questions about photographs, and about what is new in unseen scenes."""
        data = held_out(seed)
        rng = data.rng(3)
        examples = []
        chosen = data.choose_photographs(3, PHOTOGRAPHS).tolist()
        for index, kind in zip(chosen, _GARMENT_KINDS, strict=True):
            question, answer = draw_question(int(data.labels[index]), rng, kind)
            examples.append(shown_question(data.photographs[index], question, answer))
        scenes = data.choose_scenes(3, 40)
        for kind in QUESTION_KINDS:
            scene = next(one for one in scenes if available_answers(one, kind, about_anchor=True))
            scenes.remove(scene)
            one = sample_question(scene, rng, kind, about_anchor=True)
            examples.append(shown_question(scene_pictures([scene])[0], one.text, one.answer))
        return examples


def answers_of(example: Example) -> list[str]:
    """The right answers of an example: a str, or a list of what several people said."""
    answer = example["answer"]
    return [answer] if isinstance(answer, str) else [str(one) for one in answer]


def choice_options(tokenizer: Any, choices: Sequence[str]) -> dict[str, Any]:
    """Keywords of `generate()` for one block that holds any of the choices, in one forward.

    Raises:
        ValueError: if there are none.
    """
    if not choices:
        raise ValueError("choices must name at least one answer, got none")
    cut = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in choices]
    longest = max(1, *(len(ids) for ids in cut))
    return {
        "choices": list(choices),
        "tokenizer": tokenizer,
        "max_denoising_steps": 1,
        "max_new_tokens": longest,
        "block_length": longest,
    }


def exact(said: Sequence[str], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64, 1 where an answer is one of the right ones, after normalisation."""
    pairs = zip(said, examples, strict=True)
    is_right = [normalised(one) in map(normalised, answers_of(example)) for one, example in pairs]
    return np.array(is_right, dtype=np.float64)


def shown_question(picture: np.ndarray, question: str, answer: str) -> DemoExample:
    """A question, its picture beside the answer."""
    return DemoExample(
        {"image": picture, "question": question},
        question,
        answer,
        lambda said: said.strip() == answer,
        pictures=lambda said: [picture],
        section="Answering questions",
    )
