"""The tasks whose quality is measured against tokens per forward, each with scores per input.

A task answers with scores by name, (N,) float64 in [0, 1], so that two settings can be compared
input by input. The first is the number of the suite; a setting must keep up in all of them.
"""

# Shapes: N inputs.

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unidiff.data.sources.garments import (
    CAPTIONS,
    CLASS_NAMES,
    caption_names_class,
    with_article,
)
from unidiff.data.sources.scene_facts import QUESTION_KINDS
from unidiff.data.sources.tabletop_rollout import evaluation_seeds, rollout_batch
from unidiff.data.sources.tabletop_scene import TASKS as CONTROL_TASKS

from .captions import ask_for_captions
from .context import EvaluationContext, Settings
from .control import model_policy
from .coverage import coverage, repeated_share
from .drawings import draw_garments, draw_scenes
from .garment_judge import load_judge
from .infilling import continue_text, fill_holes
from .questions import answers_are_right, unseen_questions

_NUM_TEST_PHOTOGRAPHS = 10_000
_PHOTOGRAPHS_PER_SEED = 2_000
_NEIGHBOUR = 5
_SENTENCES = frozenset(
    caption.format(thing=with_article(name)) for caption in CAPTIONS for name in CLASS_NAMES
)


@dataclass(frozen=True)
class Scores:
    """What a task found.

    Attributes:
        by_name: (N,) float64 in [0, 1] of each input; the suite's own number first.
        details: numbers about all inputs together.
    """

    by_name: Mapping[str, np.ndarray]
    details: Mapping[str, Any] = field(default_factory=dict)


Task = Callable[[EvaluationContext, Settings, int], Scores]


def _captions(context: EvaluationContext, settings: Settings, number: int) -> Scores:
    """Does a caption name the class, and is it a sentence of the captions' language?"""
    first = context.seed * _PHOTOGRAPHS_PER_SEED % _NUM_TEST_PHOTOGRAPHS
    if first + number > _NUM_TEST_PHOTOGRAPHS:
        first = 0
    _, codes, labels = context.photographs(first + number)
    answers = ask_for_captions(context, settings, codes[first:])
    named = [caption_names_class(answer) for answer in answers]
    is_right = [name == label for name, label in zip(named, labels[first:], strict=True)]
    is_sentence = [answer in _SENTENCES for answer in answers]
    return Scores(
        {"names_class": _numbers(is_right), "is_sentence": _numbers(is_sentence)},
        {"examples": answers[:4]},
    )


def _questions(context: EvaluationContext, settings: Settings, number: int) -> Scores:
    """Is the one-word answer right?"""
    asked, codes = unseen_questions(context, max(1, number // len(QUESTION_KINDS)))
    return Scores({"is_right": _numbers(answers_are_right(context, settings, asked, codes))})


def _garment_drawings(context: EvaluationContext, settings: Settings, number: int) -> Scores:
    """Does the judge see the garment asked for? Coverage stands in the details."""
    codes, drawings, labels = draw_garments(context, settings, number)
    judge = load_judge(settings.get("judge"))
    details = {"duplicates": repeated_share(codes)} if number > 1 else {}
    if number > _NEIGHBOUR:
        photographs, _, _ = context.photographs(number)
        real, drawn = judge.features(photographs), judge.features(drawings)
        details["coverage"] = coverage(real, drawn, _NEIGHBOUR)
    return Scores({"is_class": _numbers(judge.classify(drawings) == labels)}, details)


def _scene_drawings(context: EvaluationContext, settings: Settings, number: int) -> Scores:
    """Are both objects there, as and where they were asked for?"""
    right, _ = draw_scenes(context, settings, number)
    return Scores({"is_right": _numbers(right)})


def _control(context: EvaluationContext, settings: Settings, number: int) -> Scores:
    """Does an episode reach its goal? Half of the episodes are of each task."""
    success: list[bool] = []
    shares = {}
    for index, task in enumerate(CONTROL_TASKS):
        episodes = (number + index) // len(CONTROL_TASKS)
        seeds = [seed + context.seed * number for seed in evaluation_seeds(episodes)]
        policy, every = model_policy(context, settings), settings["replan_every"]
        results = rollout_batch(policy, seeds, task, replan_every=every) if seeds else []
        success += [result.success for result in results]
        if results:
            shares[task] = float(np.mean([result.success for result in results]))
    return Scores({"success": _numbers(success)}, {"success_by_task": shares})


def _infilling(context: EvaluationContext, settings: Settings, number: int) -> Scores:
    """How near is what fills a hole in held-out text?"""
    return Scores(fill_holes(context, settings, number))


def _completion(context: EvaluationContext, settings: Settings, number: int) -> Scores:
    """How near is what continues held-out text?"""
    return Scores(continue_text(context, settings, number))


TASKS: dict[str, Task] = {
    "captions": _captions,
    "questions": _questions,
    "control": _control,
    "infilling": _infilling,
    "completion": _completion,
    "garment_drawings": _garment_drawings,
    "scene_drawings": _scene_drawings,
}


def _numbers(values: Any) -> np.ndarray:
    """(N,) float64."""
    return np.asarray(values, dtype=np.float64)
