"""Running a suite: its definition, its groups of metrics in order, and the report.

A suite is a TOML file in `suites/`: goals, and one table per group of metrics that share inputs.
"""

import time
import tomllib
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .captions import measure_captions
from .context import EvaluationContext, Settings
from .control import measure_control
from .drawings import measure_garment_drawings, measure_scene_drawings
from .images import measure_images
from .questions import measure_questions
from .report import Goal, Measurement, MetricReport, SuiteReport
from .responder import ModelResponder, Responder, Usage
from .text import measure_text

SUITES_DIR = Path(__file__).parent / "suites"
Group = Callable[[EvaluationContext, Settings], list[Measurement]]
Progress = Callable[[str, int, int], None]

GROUPS: dict[str, Group] = {
    "images": measure_images,
    "captions": measure_captions,
    "questions": measure_questions,
    "control": measure_control,
    "scene_drawings": measure_scene_drawings,
    "garment_drawings": measure_garment_drawings,
    "text": measure_text,
}
# Tables of samplers that commands and `unidiff bench quality` use, without a metric of the suite.
SAMPLERS_ALONE = ("infilling", "completion")
_LIKELIHOOD_SETTINGS = ("window_length", "block_length", "num_samples")


def suite_names() -> list[str]:
    """Names of the suites that ship with the package."""
    return sorted(path.stem for path in SUITES_DIR.glob("*.toml"))


def load_suite(name: str) -> dict[str, Any]:
    """Definition of a suite.

    Raises:
        ValueError: if there is no such suite, or it has a table that is no group of metrics.
    """
    if name not in suite_names():
        raise ValueError(f"suite must be one of {suite_names()}, got {name!r}")
    definition = tomllib.loads((SUITES_DIR / f"{name}.toml").read_text(encoding="utf-8"))
    unknown = set(definition) - {"name", "goals", *GROUPS, *SAMPLERS_ALONE}
    if unknown:
        raise ValueError(f"suite {name!r} has unknown tables {sorted(unknown)}: {sorted(GROUPS)}")
    return definition


def metric_names(name: str) -> list[str]:
    """Names of the metrics of a suite, in the order in which they are measured."""
    definition = load_suite(name)
    groups = [definition[group] for group in GROUPS if group in definition]
    return [metric for group in groups for metric in group["measures"]]


def run_suite(
    name: str,
    model: Any,
    processor: Any,
    *,
    seed: int = 0,
    limit: int | None = None,
    metrics: Collection[str] | None = None,
    progress: Progress | None = None,
    responder: Responder | None = None,
) -> SuiteReport:
    """Measure a model.

    Args:
        name: of the suite, such as "bundled".
        model: `UniDiffForBlockDiffusion`; set to evaluation mode.
        processor: its processor.
        seed: decides inputs and sampling; 0 is what results are recorded with.
        limit: largest number of inputs of each metric, for a quick look.
        metrics: names of the metrics wanted; None: all.
        progress: called with (group, requests answered, 0) while a group is measured, and with
            (group, groups done, groups) after it.
        responder: answers in the model's place, in tests.

    Raises:
        ValueError: if the suite or a metric is unknown, or the limit is below 1.
    """
    definition = load_suite(name)
    wanted = _wanted(name, metrics)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be >= 1 or None, got {limit}")
    if hasattr(model, "eval"):
        model.eval()
    responder = responder or ModelResponder(model, processor)
    context = EvaluationContext(responder, model, processor, seed, limit)
    groups = [g for g in GROUPS if set(definition.get(g, {}).get("measures", ())) & wanted]
    begin = time.perf_counter()
    reports: list[MetricReport] = []
    for number, group in enumerate(groups):
        if isinstance(responder, ModelResponder):
            responder.tick = _ticker(progress, group)
        found = _measure(group, context, definition)
        reports += [report for report in found if report.measurement.name in wanted]
        if progress is not None:
            progress(group, number + 1, len(groups))
    return SuiteReport(
        suite=name,
        seed=seed,
        limit=limit,
        metrics=tuple(reports),
        environment=describe_environment(model),
        seconds=time.perf_counter() - begin,
    )


def describe_environment(model: Any) -> dict[str, Any]:
    """Versions, threads and the model's size: what seconds and rounding depend on."""
    versions = {}
    for package in ("unidiff", "torch", "transformers"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    parameters = list(model.parameters()) if hasattr(model, "parameters") else []
    return {
        **versions,
        "threads": torch.get_num_threads(),
        "num_parameters": sum(parameter.numel() for parameter in parameters),
        "dtype": str(parameters[0].dtype) if parameters else None,
        "device": str(parameters[0].device) if parameters else None,
    }


def _wanted(name: str, metrics: Collection[str] | None) -> set[str]:
    """The metrics asked for; raises ValueError if one is unknown."""
    known = metric_names(name)
    if metrics is None:
        return set(known)
    unknown = set(metrics) - set(known)
    if unknown or not metrics:
        raise ValueError(f"metrics must be among {known}, got {sorted(metrics)}")
    return set(metrics)


def _ticker(progress: Progress | None, group: str) -> Callable[[int], None] | None:
    """Counts answered requests and reports the sum."""
    if progress is None:
        return None
    done = 0

    def tick(number: int) -> None:
        nonlocal done
        done += number
        progress(group, done, 0)

    return tick


def _measure(
    group: str, context: EvaluationContext, definition: Mapping[str, Any]
) -> list[MetricReport]:
    """Reports of one group."""
    settings = definition[group]
    context.responder.usage = usage = Usage()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    measurements = GROUPS[group](context, settings)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
    sampler = settings.get("sampler")
    if sampler is None:
        sampler = {name: settings[name] for name in _LIKELIHOOD_SETTINGS if name in settings}
    goals = definition["goals"]
    return [
        MetricReport(
            measurement=one,
            goal=Goal(**goals[one.name]) if one.name in goals else None,
            sampler=sampler,
            seed=context.seed,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            num_forwards=usage.num_forwards,
            forwards_per_input=usage.num_forwards / max(1, usage.num_requests),
            tokens_per_forward=usage.num_tokens / max(1, usage.num_forwards),
        )
        for one in measurements
    ]
