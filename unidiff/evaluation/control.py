"""`closed_loop_success`: does the model drive hand or puck to the disc that it is told?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unidiff.data.sources.tabletop_rollout import (
    BatchPolicy,
    EpisodeResult,
    evaluation_seeds,
    rollout_batch,
    swapped_instruction,
)
from unidiff.data.sources.tabletop_scene import TASKS

from .context import EvaluationContext, Settings, image_part, user_turn
from .intervals import wilson_interval
from .pictures import encode_pictures
from .report import Measurement

_MOST_WHEN_SWAPPED = 0.2  # issue 2, done when 4
_CHUNK_SHAPE = (8, 2)


def measure_control(context: EvaluationContext, settings: Settings) -> list[Measurement]:
    """Episodes on unseen tables; the number reported is that of the weaker task.

    Args:
        context: who answers, how much.
        settings: `num_seeds` of each task, `replan_every` and `sampler`.
    """
    number = context.count(settings["num_seeds"])
    start = context.seed * number
    seeds = [seed + start for seed in evaluation_seeds(number)]
    replan_every = settings["replan_every"]
    told = model_policy(context, settings)
    guessing = random_policy(np.random.default_rng([context.seed, number]))
    by_task = {}
    for task in TASKS:
        runs = {
            "told": rollout_batch(told, seeds, task, replan_every=replan_every),
            "swapped": rollout_batch(
                told,
                seeds,
                task,
                replan_every=replan_every,
                instruction_override=swapped_instruction,
            ),
            "random": rollout_batch(guessing, seeds, task, replan_every=replan_every),
        }
        by_task[task] = {name: _summary(results) for name, results in runs.items()}
    weakest = min(TASKS, key=lambda task: by_task[task]["told"]["success"])
    value = by_task[weakest]["told"]["success"]
    swapped = max(by_task[task]["swapped"]["success"] for task in TASKS)
    return [
        Measurement(
            name="closed_loop_success",
            value=value,
            num_inputs=number * len(TASKS),
            interval=wilson_interval(round(value * number), number),
            details={
                "weakest_task": weakest,
                "both_tasks": float(np.mean([by_task[t]["told"]["success"] for t in TASKS])),
                "episodes_per_task": number,
                **by_task,
            },
            conditions={"swapped_at_most_0.2": swapped <= _MOST_WHEN_SWAPPED},
        )
    ]


def model_policy(context: EvaluationContext, settings: Settings) -> BatchPolicy:
    """The model as a policy for many tables side by side."""

    def policy(
        images: list[np.ndarray], states: list[np.ndarray], instructions: list[str]
    ) -> Sequence[np.ndarray]:
        codes = encode_pictures(context.processor, np.stack(images))
        requests = [
            user_turn(image_part(one), {"type": "state", "state": state}, instruction)
            for one, state, instruction in zip(codes, states, instructions, strict=True)
        ]
        return list(context.responder.actions(requests, settings["sampler"], context.seed))

    return policy


def random_policy(rng: np.random.Generator) -> BatchPolicy:
    """Uniform actions."""

    def policy(
        images: list[np.ndarray], states: list[np.ndarray], instructions: list[str]
    ) -> Sequence[np.ndarray]:
        del states, instructions
        return list(rng.uniform(-1, 1, (len(images), *_CHUNK_SHAPE)))

    return policy


def _summary(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Shares and means over episodes."""
    success = [result.success for result in results]
    return {
        "success": float(np.mean(success)),
        "interval": list(wilson_interval(sum(success), len(success))),
        "wrong_target": float(np.mean([result.wrong_target for result in results])),
        "mean_steps": float(np.mean([result.num_steps for result in results])),
    }
