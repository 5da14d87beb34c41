"""`unidiff eval`: a suite on held-out data, or the tasks of plugins on theirs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.plugins.evaluation import EvaluationRequest

from .eval_tasks import TaskRun, own_evaluation, report_evaluation, report_tasks
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
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="NAME=VALUE for a task that measures in its own way; may be repeated. A name that "
            "it does not know is answered with those that it does.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a checkpoint on held-out data, or the tasks of plugins on theirs."""
    from unidiff.evaluation.suite import run_suite, suite_names

    if suite not in suite_names():
        if metrics:
            raise ValueError("--metric chooses among a suite's metrics; a task has its own")
        if (evaluation := own_evaluation(suite)) is not None:
            if adapters:
                raise ValueError(f"{suite} is measured with one folder: give it as --checkpoint")
            request = EvaluationRequest(
                model.checkpoint, model.device, limit, seed, _pairs(settings), _cells_of(out)
            )
            report_evaluation(evaluation, request, out, as_json)
            return
        _check_unused(settings, suite)
        run = TaskRun(suite, limit or _EXAMPLES, seed, tuple(adapters or ()))
        report_tasks(open_session(model), run, out, as_json)
        return
    if adapters:
        raise ValueError("--adapter is for tasks; give a suite the folder as --checkpoint")
    _check_unused(settings, suite)
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


def _check_unused(settings: list[str] | None, suite: str) -> None:
    """Raise ValueError if settings were given to what has none."""
    if settings:
        raise ValueError(f"--set is for a task that measures in its own way; {suite!r} does not")


def _pairs(settings: list[str] | None) -> dict[str, str]:
    """Name -> value of settings; raises ValueError unless each is NAME=VALUE, and named once."""
    pairs = [one.partition("=") for one in settings or []]
    found = {name.strip(): value.strip() for name, _, value in pairs}
    if len(found) != len(pairs) or not all(name and mark for name, mark, _ in pairs):
        raise ValueError(f"--set takes NAME=VALUE, each name once; got {settings}")
    return found


def _cells_of(out: Path | None) -> Path | None:
    """Folder beside the report in which finished parts are kept."""
    return None if out is None else out.with_suffix(".cells")


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
