"""Long commands: their progress, and how a stopped one goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer


def progress_bars() -> Any:
    """A progress display on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def run_beside(out: Path) -> Path:
    """The folder of the run that makes `out`, from which a stopped command goes on."""
    return out.with_name(f"{out.name}.run")


@contextmanager
def goes_on() -> Iterator[None]:
    """Say, where a training is stopped, that the same command goes on with it."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("unidiff: stopped; the same command goes on from the last save", err=True)
        raise
