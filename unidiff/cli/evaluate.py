"""`unidiff eval`: a suite on held-out data, or the tasks of plugins on theirs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .eval_tasks import TaskRun, report_tasks
from .options import JsonFlag, ModelChoice, takes_options
from .output import print_json
from .progress import progress_bars
from .session import open_session

_EXAMPLES = 200  # of each task, where --limit says nothing


@takes_options
def evaluate(
    model: ModelChoice,
    suite: Annotated[
        str, typer.Argument(help="A suite; a plugin's task; or `tasks`: all of them.")
    ] = "bundled",
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="Only this metric; may be repeated.")
    ] = None,
    adapters: Annotated[
        list[Path] | None,
        typer.Option("--adapter", help="Adapter folder to measure too; may be repeated."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Samples of each metric.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of samples and decoding.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a checkpoint on held-out data, or the tasks of plugins on theirs."""
    from unidiff.evaluation.suite import run_suite, suite_names

    if suite not in suite_names():
        if metrics:
            raise ValueError("--metric chooses among a suite's metrics; a task has its own")
        run = TaskRun(suite, limit or _EXAMPLES, seed, tuple(adapters or ()))
        report_tasks(open_session(model), run, out, as_json)
        return
    if adapters:
        raise ValueError("--adapter is for tasks; give a suite the folder as --checkpoint")
    session = open_session(model)
    with progress_bars() as progress:
        report = run_suite(
            suite,
            session.model,
            session.processor,
            seed=seed,
            limit=limit,
            metrics=metrics or None,
            progress=_watcher(progress, suite),
        ).to_dict()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _watcher(progress: Any, suite: str) -> Callable[[str, int, int], None]:
    """Shows groups done of the suite, and answers given in the group under way."""
    bars: dict[str, Any] = {suite: progress.add_task(suite, total=None)}

    def show(group: str, done: int, total: int) -> None:
        if total:  # a group is finished: groups done, groups in all
            progress.update(bars[suite], completed=done, total=total)
            return
        if group not in bars:
            bars[group] = progress.add_task(f"  {group}", total=None)
        progress.update(bars[group], completed=done)

    return show


def _print_report(report: dict[str, Any]) -> None:
    """The metrics as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("metric", "value", "aim", "floor", "inputs", "NFE", "")
    for name, one in report["metrics"].items():
        mark = Text("aim met", "green") if one.get("reaches_aim") else Text("passes", "yellow")
        mark = mark if one.get("passes") else Text("below the floor", "red")
        columns = ("value", "aim", "floor", "num_inputs", "forwards_per_input")
        numbers = [one.get(column) for column in columns]
        shown = ["" if n is None else f"{n:.4g}" for n in numbers]
        table.add_row(name, *shown, mark)
    Console().print(table)
