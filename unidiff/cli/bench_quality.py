"""`unidiff bench quality`: what each unmasking strategy costs in quality, task by task."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonFlag, ModelChoice, takes_options
from .output import print_json
from .session import open_session

CELLS, REPORT, TABLE, PLOT = "cells", "quality.json", "quality.md", "quality.png"


@takes_options
def bench_quality(
    model: ModelChoice,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")
    ] = None,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm", help="Only each default and its reference, on all inputs set aside."
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="Largest number of inputs of a setting.", min=1)
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of results; a run that was stopped goes on in it.")
    ] = Path("quality"),
    as_json: JsonFlag = False,
) -> None:
    """Measure quality against tokens per forward, for each task and unmasking strategy."""
    from unidiff.evaluation.suite import describe_environment
    from unidiff.evaluation.tradeoff import plan_sweep
    from unidiff.evaluation.tradeoff_report import draw_tradeoff, markdown_table, summarise

    plan = plan_sweep(tasks or None, confirms=confirm, limit=limit)
    session = open_session(model)
    typer.echo(f"about {plan.minutes():.0f} minutes on one idle core", err=True)
    found = _run(session, plan, out / CELLS)
    rows = summarise(plan.sweep, found)
    report = {
        "benchmark": "quality",
        "confirms": confirm,
        "limit": limit,
        "margin_points": plan.sweep["margin_points"],
        "environment": describe_environment(session.model),
        "rows": rows,
    }
    table = markdown_table(rows)
    (out / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (out / TABLE).write_text(table, encoding="utf-8")
    draw_tradeoff(rows, out / PLOT)
    if as_json:
        print_json(report)
    else:
        typer.echo(table)


def checkpoint_name(folder: Path) -> str:
    """First digits of the weights' SHA-256."""
    from unidiff.model.checkpoint import weight_files

    digest = sha256()
    for path in weight_files(folder):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _run(session: Any, plan: Any, cells: Path) -> list[Any]:
    """The sweep with its progress on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from unidiff.evaluation.responder import ModelResponder
    from unidiff.evaluation.tradeoff import run_sweep

    name = checkpoint_name(session.folder)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as shown:
        settings = shown.add_task("settings", total=len(plan.cells(name)))
        answers = shown.add_task("answers", total=None)

        def progress(cell: Any, measured: Any, is_new: bool) -> None:
            shown.reset(answers)
            shown.advance(settings)
            mean = float(next(iter(measured.scores.values())).mean())
            pace = measured.tokens_per_forward
            word = "" if is_new else " (known)"
            shown.console.print(
                f"{cell.task}, {cell.label}: {mean:.4f} at {pace:.2f} tokens per forward{word}",
                highlight=False,
            )

        responder = ModelResponder(
            session.model, session.processor, lambda number: shown.advance(answers, number)
        )
        return run_sweep(
            session.model,
            session.processor,
            name,
            cells,
            plan,
            progress=progress,
            responder=responder,
        )
