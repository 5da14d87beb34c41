"""`unidiff trace`: the order in which a text or a picture was revealed, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import samplers
from .options import Decoding, JsonFlag, ModelChoice, TextLength, takes_options
from .output import print_cost, print_json
from .session import open_session

_MAX_LABELS = 96  # tokens whose text still fits under the axis


@takes_options
def trace(
    text: Annotated[str, typer.Argument(help="Text to continue, or to draw with --draw.")],
    model: ModelChoice,
    decoding: Decoding,
    length: TextLength,
    draw: Annotated[bool, typer.Option("--draw", help="Draw a picture of the text.")] = False,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("trace.png"),
    as_json: JsonFlag = False,
) -> None:
    """Show in which step every token was revealed, and how certain it was."""
    session = open_session(model)
    processor = session.processor
    if draw:
        options, inputs = decoding.over(samplers.drawing()), processor.for_image(text)
    else:
        defaults = samplers.completing(session.model)
        options = decoding.over({**defaults, **length.keywords()})
        inputs = processor.for_completion(text)
    answers, output = session.answer_and_output(inputs, {**options, "return_trace": True})
    reveals = output.trace[0]
    grid = session.model.config.layout.image_grid if draw else None
    tokens = [] if draw else [processor.tokenizer.decode([token]) for token in reveals.token_id]
    draw_trace(reveals, tokens, grid, out)
    if as_json:
        facts = {"task": "trace", "input": text, "picture": str(out), "trace": reveals.to_dict()}
        print_json(facts | answers[0].cost())
        return
    typer.echo(f"wrote {out}")
    print_cost(answers[0].cost())


def draw_trace(
    reveals: Any, tokens: Sequence[str], grid: tuple[int, int] | None, path: Path
) -> None:
    """Write a PNG of a trace: steps over places of a text, or both over the grid of a picture.

    Args:
        reveals: a `unidiff.generation.trace.Trace`.
        tokens: text of each revealed token, in the trace's order; read without a grid.
        grid: rows and columns of the picture's codes, None for text.
        path: of the PNG.

    Raises:
        ValueError: if nothing was revealed.
    """
    from matplotlib.figure import Figure

    if not len(reveals):
        raise ValueError("nothing was revealed, so there is nothing to draw: ask for more tokens")
    if grid is None:
        figure = Figure(figsize=(min(24.0, 3 + 0.22 * len(reveals)), 5), dpi=110)
        _draw_text(figure, reveals, tokens)
    else:
        figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
        _draw_grid(figure, reveals, grid)
    figure.savefig(path, bbox_inches="tight")


def _draw_text(figure: Any, reveals: Any, tokens: Sequence[str]) -> None:
    """One dot for each token: its place, its step, its confidence as colour."""
    axes = figure.subplots()
    dots = axes.scatter(
        reveals.index, reveals.step, c=reveals.confidence, cmap="viridis", vmin=0, vmax=1, s=36
    )
    axes.set(ylabel="forward", title="when each token was revealed")
    axes.invert_yaxis()
    axes.grid(alpha=0.2)
    if len(tokens) <= _MAX_LABELS:
        labels = [repr(token)[1:-1] for token in tokens]
        axes.set_xticks(reveals.index, labels, rotation=90, fontsize=7, family="monospace")
    else:
        axes.set_xlabel("place in the response")
    figure.colorbar(dots, ax=axes, label="confidence")


def _draw_grid(figure: Any, reveals: Any, grid: tuple[int, int]) -> None:
    """Two maps of the picture's codes: the step of each, and its confidence."""
    import numpy as np

    panels = figure.subplots(1, 2)
    maps = {"forward": reveals.step, "confidence": reveals.confidence}
    for axes, (name, values) in zip(panels, maps.items(), strict=True):
        cells = np.full(grid[0] * grid[1], np.nan)
        cells[reveals.index] = values
        shown = axes.imshow(cells.reshape(grid), cmap="viridis")
        axes.set(title=name, xticks=[], yticks=[])
        figure.colorbar(shown, ax=axes)
