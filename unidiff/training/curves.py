"""The curves of a training run as one picture: nats per token of each modality, and the rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

CURVES = {  # log key -> what it is
    "text_nats": "text: bound",
    "ar_nats": "text: next token",
    "image_nats": "image: masked codes",
    "action_nats": "action: masked bins",
}
_COLOURS = ("#2563eb", "#93c5fd", "#16a34a", "#ea580c")


def draw_curves(history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write a PNG with the curves of a trainer's log; a log without them gives empty axes.

    Args:
        history: the trainer's log lines, each with `step`.
        path: of the PNG.
    """
    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    axes, rate_axes = figure.subplots(1, 2, width_ratios=(3, 1))
    for (key, label), colour in zip(CURVES.items(), _COLOURS, strict=True):
        steps, values = series(history, key)
        axes.plot(steps, values, label=label, color=colour, linewidth=1.6)
    axes.set(xlabel="optimiser step", ylabel="nats per token", title="training loss by modality")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    rate_axes.plot(*series(history, "learning_rate"), color="#525252", linewidth=1.6)
    rate_axes.set(xlabel="optimiser step", title="learning rate")
    rate_axes.grid(alpha=0.25)
    for one in (axes, rate_axes):
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """(steps, values) of the log lines that have this key."""
    lines = [line for line in history if key in line and "step" in line]
    return [int(line["step"]) for line in lines], [float(line[key]) for line in lines]
