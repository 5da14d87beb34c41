"""The part of `unidiff infill` that fills one hole with care for its ends and its length."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from unidiff.cli.options import Decoding
from unidiff.cli.output import print_json
from unidiff.cli.session import Session
from unidiff.tokens.infill import HOLE_MARKER

from .filling import LENGTHS, Filler
from .fim import FillInTheMiddle
from .one_line import OneLine

_PANEL = "One hole in a text"


@dataclass(frozen=True)
class OneHole:
    """How a text with a single hole is filled by the task `fim`."""

    boundary: Annotated[
        str | None,
        typer.Option(
            help="Cut what is known where tokens do not depend on the hole (unbiased), or at the "
            "hole (naive); the prefix becomes the prompt.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    search_length: Annotated[
        bool,
        typer.Option(
            "--search-length", help="Try several lengths, keep the best.", rich_help_panel=_PANEL
        ),
    ] = False
    one_line: Annotated[
        bool, typer.Option("--one-line", help="No line end in it.", rich_help_panel=_PANEL)
    ] = False

    @property
    def is_asked(self) -> bool:
        """Whether any of these options was given."""
        return self.boundary is not None or self.search_length or self.one_line


def fill_one_hole(
    session: Session,
    text: str,
    hole_length: int,
    one_hole: OneHole,
    decoding: Decoding,
    as_json: bool,
) -> None:
    """Fill, and print the whole text.

    Raises:
        ValueError: if the text has not exactly one hole, or an option does not fit.
    """
    pieces = text.split(HOLE_MARKER)
    if len(pieces) != 2:
        raise ValueError(
            f"--boundary, --search-length and --one-line need exactly one {HOLE_MARKER} in the "
            f"text, got {len(pieces) - 1}"
        )
    prefix, suffix = pieces
    task = FillInTheMiddle(one_hole.boundary or "unbiased")
    options: dict[str, Any] = decoding.over({})
    seed = options.pop("seed")
    if one_hole.one_line:
        options["logits_processor"] = [OneLine(session.processor.tokenizer)]
    filler = Filler(task, session.model, session.processor, options, seed)
    example = {"prefix": prefix, "suffix": suffix, "length": hole_length}
    (filled,) = filler.fill([example], LENGTHS if one_hole.search_length else None)
    report = {
        "task": "infill",
        "input": text,
        "output": prefix + filled.text + suffix,
        "middle": filled.text,
        "boundary": task.boundary,
        "length": filled.length,
        "num_forwards": filled.num_forwards,
        "log_prob": filled.log_prob,
        "seed": seed,
    }
    if as_json:
        print_json(report)
        return
    typer.echo(report["output"])
    typer.secho(f"[{filled.num_forwards} forwards, {filled.length} tokens]", err=True, dim=True)
