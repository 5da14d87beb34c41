"""`unidiff eval tasks`: every installed task on its own held-out examples."""

import json
from pathlib import Path
from typing import Any

import typer

from unidiff.plugins.registry import all_plugins, find_task

from .output import print_json
from .progress import progress_bars
from .session import Session

ALL = "tasks"


def report_tasks(
    session: Session, which: str, limit: int, seed: int, out: Path | None, as_json: bool
) -> None:
    """Measure, write and print.

    Args:
        session: checkpoint.
        which: a task, or "tasks" for all.
        limit: examples of each.
        seed: of decoding.
        out: JSON file; the table is written beside it.
        as_json: print JSON instead of the table.

    Raises:
        ValueError: if there is no such task.
    """
    from unidiff.evaluation.suite import describe_environment
    from unidiff.evaluation.tasks import task_table

    reports, skipped = _measure(session, None if which == ALL else which, limit, seed)
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


def _measure(
    session: Session, name: str | None, limit: int, seed: int
) -> tuple[list[Any], dict[str, str]]:
    """(reports, why a task has none)."""
    from unidiff.evaluation.tasks import measure_task

    skipped: dict[str, str] = {}
    if name is not None:
        tasks = [find_task(name)]
    else:
        plugins, skipped = all_plugins()
        tasks = [task for plugin in plugins.values() for task in plugin.tasks]
    reports = []
    with progress_bars() as progress:
        for task in tasks:
            lacking = sorted(task.modalities - set(session.processor.layout.ranges))
            if lacking:
                skipped[task.name] = f"the checkpoint has no {' and no '.join(lacking)} tokens"
                continue
            examples = task.dataset("test", limit)
            bar = progress.add_task(task.name, total=len(examples))
            reports.append(
                measure_task(
                    task,
                    session.model,
                    session.processor,
                    examples,
                    seed=seed,
                    tick=lambda number, bar=bar: progress.advance(bar, number),  # type: ignore[misc]
                )
            )
    return reports, skipped
