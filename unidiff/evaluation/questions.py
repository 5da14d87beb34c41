"""`unseen_question_accuracy`: questions about combinations that never occur in training."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from unidiff.data.sources.scene_facts import QUESTION_KINDS
from unidiff.data.sources.scene_language import Question, balanced_questions
from unidiff.data.sources.scenes import Scene, render_scene, sample_scene, scene_generator

from .context import EvaluationContext, Settings, image_part, share_measurement, user_turn
from .intervals import wilson_interval
from .pictures import encode_pictures
from .report import Measurement

BLANK_LEVEL = 128
_SCENES_PER_QUESTION = 4  # questions of a kind are drawn from this many times as many scenes
_FEWEST_SCENES = 400
_TEXT_ONLY_GAP = 0.30  # issue 2, done when 4: points above the same model without the image


def measure_questions(context: EvaluationContext, settings: Settings) -> list[Measurement]:
    """Questions about the unseen pair of each scene, and two text-only baselines.

    The baselines ask the same model the same questions about another question's scene, and about a
    blank picture; the better one counts.

    Args:
        context: who answers, how much; `limit` is split over the kinds.
        settings: `per_kind` questions and `sampler`.
    """
    per_kind = settings["per_kind"]
    if context.limit is not None:
        per_kind = min(per_kind, max(1, context.limit // len(QUESTION_KINDS)))
    asked, codes = unseen_questions(context, per_kind)
    blank = np.full((1, *render_scene(asked[0][0]).shape), BLANK_LEVEL, dtype=np.uint8)
    pictures = {
        "model": codes,
        "other_scene": np.roll(codes, max(1, len(codes) // 2), axis=0),
        "blank_picture": np.repeat(encode_pictures(context.processor, blank), len(codes), axis=0),
    }
    right = {
        name: answers_are_right(context, settings, asked, shown) for name, shown in pictures.items()
    }
    return [_measurement([question for _, question in asked], right)]


def unseen_questions(
    context: EvaluationContext, per_kind: int
) -> tuple[list[tuple[Scene, Question]], np.ndarray]:
    """(Scene, question) pairs with answers as even as possible, and the (N, h * w) codes."""
    number = max(_FEWEST_SCENES, _SCENES_PER_QUESTION * per_kind)
    first = context.seed * number
    scenes = [
        sample_scene(scene_generator("unseen", first + index), "unseen") for index in range(number)
    ]
    rng = np.random.default_rng([context.seed, per_kind])
    drawn = balanced_questions(scenes, rng, per_kind, about_anchor=True)
    pictures = np.stack([render_scene(scenes[index]) for index, _ in drawn])
    asked = [(scenes[index], question) for index, question in drawn]
    return asked, encode_pictures(context.processor, pictures)


def is_answer(text: str, answer: str) -> bool:
    """Whether a text is the one-word answer, in any case, with or without a full stop."""
    return text.strip().rstrip(".").strip().lower() == answer


def majority_accuracy(questions: Sequence[Question]) -> float:
    """Accuracy of always giving the most frequent answer of the question's kind."""
    by_kind: dict[str, Counter[str]] = {}
    for question in questions:
        by_kind.setdefault(question.kind, Counter())[question.answer] += 1
    return sum(max(count.values()) for count in by_kind.values()) / len(questions)


def answers_are_right(
    context: EvaluationContext,
    settings: Settings,
    asked: Sequence[tuple[Scene, Question]],
    codes: np.ndarray,
) -> np.ndarray:
    """(N,) bool: whether each question is answered rightly when shown these codes."""
    requests = [
        user_turn(image_part(one), question.text)
        for one, (_, question) in zip(codes, asked, strict=True)
    ]
    answers = context.responder.texts(requests, settings["sampler"], context.seed)
    pairs = zip(answers, asked, strict=True)
    return np.array([is_answer(answer, question.answer) for answer, (_, question) in pairs])


def _measurement(questions: Sequence[Question], right: dict[str, np.ndarray]) -> Measurement:
    """Overall accuracy with its parts and baselines."""
    kinds = np.array([question.kind for question in questions])
    by_kind: dict[str, Any] = {}
    for kind in dict.fromkeys(kinds.tolist()):
        here = kinds == kind
        by_kind[kind] = {
            "accuracy": float(right["model"][here].mean()),
            "interval": list(wilson_interval(int(right["model"][here].sum()), int(here.sum()))),
            "num_questions": int(here.sum()),
            "majority": majority_accuracy([q for q in questions if q.kind == kind]),
            "other_scene": float(right["other_scene"][here].mean()),
            "blank_picture": float(right["blank_picture"][here].mean()),
        }
    text_only = max(float(right[name].mean()) for name in ("other_scene", "blank_picture"))
    above = float(right["model"].mean()) - text_only
    details = {
        "by_kind": by_kind,
        "majority_baseline": majority_accuracy(questions),
        "text_only_other_scene": float(right["other_scene"].mean()),
        "text_only_blank_picture": float(right["blank_picture"].mean()),
        "text_only_baseline": text_only,
        "above_text_only": above,
    }
    conditions = {"30_points_above_text_only": above >= _TEXT_ONLY_GAP}
    return share_measurement(
        "unseen_question_accuracy", right["model"], details=details, conditions=conditions
    )
