"""What commands print: JSON for programs, short lines for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def print_json(report: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False, default=_plain))


def print_cost(cost: Mapping[str, Any]) -> None:
    """One dim line about what an answer cost, on stderr."""
    typer.secho(
        f"[{cost['num_forwards']} forwards, {cost['tokens_per_forward']:.2f} tokens per forward, "
        f"{cost['seconds']:.2f} s]",
        err=True,
        dim=True,
    )


def picture_path(out: Path, number: int, total: int) -> Path:
    """`out`, or `out` with a number before its ending where there are several pictures."""
    return out if total == 1 else out.with_name(f"{out.stem}_{number}{out.suffix}")


def check_picture_path(out: Path) -> None:
    """Raise ValueError unless Pillow writes files with this ending; make the folder.

    Raises:
        ValueError: if the ending is not one of a picture.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"):
        raise ValueError(f"--out must end in .png, .jpg, .webp, .bmp or .gif; got {str(out)!r}")
    out.parent.mkdir(parents=True, exist_ok=True)


def enlarged(picture: Any, scale: int) -> Any:
    """The PIL picture with every pixel repeated."""
    from PIL import Image as Pillow

    size = (picture.width * scale, picture.height * scale)
    return picture.resize(size, Pillow.Resampling.NEAREST)


def _plain(value: Any) -> Any:
    """Paths as text, arrays as lists."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
