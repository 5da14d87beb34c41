"""`unidiff eval tasks`: installed tasks on held-out examples, or measured in their own way."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from unidiff.plugins.evaluation import Evaluation, EvaluationRequest
from unidiff.plugins.registry import all_plugins, find_task
from unidiff.plugins.task import Task

from .output import print_json
from .progress import progress_bars
from .session import Session

ALL = "tasks"


@dataclass(frozen=True)
class TaskRun:
    """What is measured, on how much.

    Attributes:
        which: a task, or "tasks" for all.
        limit: examples of each.
        seed: of decoding.
        adapters: folders of adapters that are measured beside the base.
    """

    which: str
    limit: int
    seed: int
    adapters: tuple[Path, ...] = ()


def report_tasks(session: Session, run: TaskRun, out: Path | None, as_json: bool) -> None:
    """Measure, write and print.

    Args:
        session: checkpoint.
        run: what is measured.
        out: JSON file; the table is written beside it.
        as_json: print JSON instead of the table.

    Raises:
        ValueError: if there is no such task.
    """
    from unidiff.evaluation.suite import describe_environment
    from unidiff.evaluation.tasks import task_table
    from unidiff.tokens.processor import UniDiffProcessor

    tasks, broken = _tasks(run.which)
    reports, lacking = _measured(session, run, tasks, "base")
    reports += _with_own_adapters(session, run, tasks)
    for folder in run.adapters:
        session.model.load_adapter(folder, adapter_name=folder.name)
        adapted = replace(session, processor=UniDiffProcessor.from_pretrained(folder))
        found, still = _measured(adapted, run, tasks, folder.name)
        reports += found
        lacking = {name: why for name, why in lacking.items() if name in still}
    skipped = {**broken, **lacking}
    reports.sort(key=lambda one: one.task)  # a task's lines stand together, the base's first
    report = {
        "tasks": [one.to_dict() for one in reports],
        "skipped": skipped,
        "checkpoint": str(session.folder),
        "environment": describe_environment(session.model),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2, default=str) + "\n")
        out.with_suffix(".md").write_text(task_table(reports))
    if as_json:
        print_json(report)
        return
    typer.echo(task_table(reports))
    for name, why in skipped.items():
        typer.echo(f"skipped: {name} ({why})")


def own_evaluation(which: str) -> Evaluation | None:
    """The measurement that a task brings of its own; None where there is none, or all are meant.

    Raises:
        ValueError: if there is no such task.
    """
    return None if which == ALL else find_task(which).evaluation()


def report_evaluation(
    evaluation: Evaluation, request: EvaluationRequest, out: Path | None, as_json: bool
) -> None:
    """Run a task's own measurement, write and print; `out` as in `report_tasks`.

    Raises:
        ValueError: if a setting is unknown; after the report, if it is no whole answer.
    """
    evaluation.check_settings(request.settings)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    with progress_bars() as progress:
        bars: dict[str, Any] = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in bars:
                bars[label] = progress.add_task(label, total=total)
            progress.update(bars[label], completed=done, total=total)

        found = evaluation.measure(replace(request, progress=show))
    if out is not None:
        out.write_text(json.dumps(found.report, indent=2, default=str) + "\n")
        out.with_suffix(".md").write_text(found.table)
    if as_json:
        print_json(found.report)
    else:
        typer.echo(found.table)
    if found.problem is not None:
        raise ValueError(found.problem)


def _with_own_adapters(session: Session, run: TaskRun, tasks: Sequence[Task]) -> list[Any]:
    """Reports of the tasks that bring an adapter, each with its own and nothing else."""
    from unidiff.plugins.own_adapter import own_adapter

    reports = []
    for task in tasks:
        with own_adapter(task, session.model) as is_read:
            if is_read:
                reports += _measured(session, run, [task], "its own adapter")[0]
    return reports


def _tasks(which: str) -> tuple[list[Task], dict[str, str]]:
    """(tasks asked for, why a plugin's are not among them)."""
    if which != ALL:
        return [find_task(which)], {}
    plugins, broken = all_plugins()
    return [task for plugin in plugins.values() for task in plugin.tasks], broken


def _measured(
    session: Session, run: TaskRun, tasks: Sequence[Task], name: str
) -> tuple[list[Any], dict[str, str]]:
    """(reports of the model as it is now, why a task has none)."""
    from unidiff.evaluation.tasks import measure_task

    reports, skipped = [], {}
    with progress_bars() as progress:
        for task in tasks:
            lacking = sorted(task.modalities - set(session.processor.layout.ranges))
            if lacking:
                skipped[task.name] = f"the checkpoint has no {' and no '.join(lacking)} tokens"
                continue
            examples = task.dataset("test", run.limit)
            bar = progress.add_task(f"{task.name} ({name})", total=len(examples))
            reports.append(
                measure_task(
                    task,
                    session.model,
                    session.processor,
                    examples,
                    name=name,
                    seed=run.seed,
                    tick=lambda number, bar=bar: progress.advance(bar, number),  # type: ignore[misc]
                )
            )
    return reports, skipped
