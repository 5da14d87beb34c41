"""`unidiff demo`: everything the model does, on inputs it has never seen, in one minute."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonFlag, ModelChoice, takes_options
from .output import print_json
from .session import open_session

if TYPE_CHECKING:
    from unidiff.data.sources.held_out import HeldOut

    from .episode import Played
    from .session import Session
from .showcase import Row

GALLERY, FILM, PAGE = "gallery.png", "episode.gif", "index.html"


@takes_options
def demo(
    model: ModelChoice,
    out: Annotated[Path, typer.Option(help="Folder for pictures and page.")] = Path("demo_out"),
    seed: Annotated[int, typer.Option(help="Decides what is shown.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Show every installed task, a chat and the robot on held-out inputs; write a gallery."""
    start = time.perf_counter()
    from unidiff.data.sources.held_out import held_out

    from .episode import write_gif
    from .gallery import draw_gallery
    from .page import write_page

    data = held_out(seed)
    session = open_session(model)
    sections, episodes, missing = _ask_everything(session, data)
    out.mkdir(parents=True, exist_ok=True)
    write_gif(out / FILM, episodes)
    draw_gallery(out / GALLERY, sections)
    rows = [row for part in sections.values() for row in part]
    summary = _summary(rows, seed, session.folder, time.perf_counter() - start)
    write_page(out, sections, summary)
    files = [str(out / name) for name in (GALLERY, FILM, PAGE)]
    if as_json:
        rows_as_json = [row.to_dict() for row in rows]
        print_json({**summary, "rows": rows_as_json, "missing": missing, "files": files})
        return
    _print_table(rows)
    for name, why in missing.items():
        typer.echo(f"not shown: {name} ({why})")
    typer.echo(f"{summary['right']} of {summary['judged']} right, {summary['seconds']} s")
    for file in files:
        typer.echo(file)


def _ask_everything(
    session: "Session", data: "HeldOut"
) -> tuple[dict[str, list["Row"]], list["Played"], dict[str, str]]:
    """Rows of every section, the robot's episodes, and why a plugin or task is not shown."""
    from .demo_act import drive
    from .demo_plugins import ask_plugins
    from .demo_talk import converse

    typer.echo("Asking every installed task ...", err=True)
    sections, missing = ask_plugins(session, data.seed)
    typer.echo("Talking about a picture ...", err=True)
    sections["Talking about a picture"] = converse(session, data)
    typer.echo("Driving the robot ...", err=True)
    sections["Driving the robot"], episodes = drive(session, data)
    return sections, episodes, missing


def _summary(rows: Sequence["Row"], seed: int, folder: Path, seconds: float) -> dict[str, Any]:
    """How many were right, and what it all took."""
    judged = [row for row in rows if row.is_right is not None]
    return {
        "checkpoint": str(folder),
        "seed": seed,
        "asked": len(rows),
        "judged": len(judged),
        "right": sum(bool(row.is_right) for row in judged),
        "num_forwards": sum(row.num_forwards for row in rows),
        "seconds": round(seconds, 1),
    }


def _print_table(rows: Sequence["Row"]) -> None:
    """Task, input, output, truth and cost of every row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("task", "input", "output", "truth", "")
    for name in ("NFE", "tokens/forward", "seconds"):
        table.add_column(name, justify="right")
    marks = {True: Text("ok", "green"), False: Text("wrong", "red"), None: Text("")}
    previous = rows[0].task
    for row in rows:
        if row.task != previous:
            table.add_section()
        previous = row.task
        table.add_row(
            row.task,
            Text(row.given),
            Text(row.output),
            Text(row.truth),
            marks[row.is_right],
            str(row.num_forwards),
            f"{row.tokens_per_forward:.2f}",
            f"{row.seconds:.2f}",
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(table)
