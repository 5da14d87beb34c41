"""Measuring the tasks of plugins on their own held-out examples, each metric with its interval."""

# Shapes: N examples.

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unidiff.plugins.answers import Tick, answer_examples
from unidiff.plugins.task import Example, Task

from .intervals import mean_interval, wilson_interval

_BATCH = 64


@dataclass(frozen=True)
class TaskMetric:
    """One metric of a task.

    Attributes:
        value: mean of the examples' scores, or the number that the metric gives of them all.
        interval: 95 %; None where the metric gives one number of all examples.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class TaskReport:
    """What a model does on a task.

    Attributes:
        task: its name.
        model: "base", or the adapter's name.
        metrics: name -> number; the first is the task's.
        num_examples: examples answered.
        options: keywords of `generate()` of the first example.
        seed: of decoding.
        tokens_per_forward: over all examples.
        forwards_per_example: NFE.
        seconds: wall time of answering.
    """

    task: str
    model: str
    metrics: Mapping[str, TaskMetric]
    num_examples: int
    options: Mapping[str, Any]
    seed: int
    tokens_per_forward: float
    forwards_per_example: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)


def measure_task(
    task: Task,
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    *,
    name: str = "base",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    tick: Tick | None = None,
) -> TaskReport:
    """What a model answers to a task's examples, by the task's own metrics.

    Args:
        task: with metrics.
        model: with or without an adapter.
        processor: the checkpoint's.
        examples: with their answers.
        name: of the model in the report.
        options: keywords of `generate()` over the task's own.
        seed: of decoding.
        tick: called with the number of examples answered.

    Raises:
        ValueError: if there are no examples or the task has no metrics.
    """
    metrics = task.metrics()
    if not examples or not metrics:
        raise ValueError(
            f"task {task.name!r} has {len(metrics)} metrics and {len(examples)} examples here: "
            "measuring needs some of both"
        )
    start = time.perf_counter()
    answers = answer_examples(
        task,
        model,
        processor,
        examples,
        options=options,
        seed=seed,
        batch_size=_BATCH,
        tick=tick,
    )
    seconds = time.perf_counter() - start
    results = [answer.value for answer in answers]
    num_forwards = sum(answer.num_forwards for answer in answers)
    return TaskReport(
        task=task.name,
        model=name,
        metrics={one: _measured(metric(results, examples)) for one, metric in metrics.items()},
        num_examples=len(examples),
        options=_plain({**task.options_for(processor, examples[0]), **(options or {})}),
        seed=seed,
        tokens_per_forward=sum(one.num_tokens for one in answers) / max(1, num_forwards),
        forwards_per_example=num_forwards / len(answers),
        seconds=seconds,
    )


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without the tokenizer that some of them need."""
    return {name: value for name, value in options.items() if name != "tokenizer"}


def task_table(reports: Sequence[TaskReport]) -> str:
    """Markdown table of reports: a line for each metric."""
    lines = [
        "| task | model | metric | value (95 % interval) | examples | tokens per forward | NFE | "
        "options | seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        options = ", ".join(f"{name}={value}" for name, value in report.options.items())
        for name, metric in report.metrics.items():
            value = f"{metric.value:.3f}"
            if metric.interval is not None:
                value += f" ({metric.interval[0]:.3f} to {metric.interval[1]:.3f})"
            cells = (
                *(report.task, report.model, f"`{name}`", value, str(report.num_examples)),
                *(f"{report.tokens_per_forward:.2f}", f"{report.forwards_per_example:.1f}"),
                *(options, str(report.seed)),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _measured(score: np.ndarray | float) -> TaskMetric:
    """A metric's scores as a number with its interval: Wilson's where each is 0 or 1."""
    if np.ndim(score) == 0:
        return TaskMetric(float(score), None)
    scores = np.asarray(score, dtype=np.float64)
    if np.isin(scores, (0.0, 1.0)).all():
        interval = wilson_interval(int(scores.sum()), len(scores))
    else:
        interval = mean_interval(scores)
    return TaskMetric(float(scores.mean()), interval)
