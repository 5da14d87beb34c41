"""`unidiff convert` and `unidiff export`: other people's checkpoints into our format and back."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .progress import progress_bars


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of the checkpoint as it is published, or its hub name; or a converted one "
            "that lacks its image tokenizer."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="New folder, in UniDiff's format.")],
    shard_size: Annotated[
        float, typer.Option(help="Most gigabytes of a file of weights.", min=0.001)
    ] = 5.0,
    image_tokenizer: Annotated[
        Path | None,
        typer.Option(help="Folder or file of what codes its pictures, published elsewhere."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of the repository on the hub.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read .bin and .pt files, tensors only.")
    ] = False,
) -> None:
    """Write somebody else's checkpoint in our format; one tensor is in memory at a time."""
    from unidiff.convert.writing import convert_checkpoint

    with progress_bars() as progress:
        convert_checkpoint(
            source,
            target,
            image_tokenizer=image_tokenizer,
            shard_bytes=int(shard_size * 1e9),
            on_progress=_bar(progress),
            allow_pickle=allow_pickle,
            revision=revision,
        )
    typer.echo(str(target))


def export(
    source: Annotated[Path, typer.Argument(help="Folder that `unidiff convert` wrote.")],
    target: Annotated[Path, typer.Argument(help="New folder, in the format it came from.")],
) -> None:
    """Write a converted checkpoint back in its own format, bit for bit where nothing changed."""
    from unidiff.convert.writing import export_checkpoint

    with progress_bars() as progress:
        export_checkpoint(source, target, on_progress=_bar(progress))
    typer.echo(str(target))


def _bar(progress: Any) -> Any:
    """Shows megabytes written."""
    bar = progress.add_task("megabytes", total=None)
    return lambda done, total: progress.update(
        bar, completed=done // 1_000_000, total=total // 1_000_000
    )
