"""The report on adapting as a picture: the two runs, sums against speed, bits per byte."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .adaptation import LEAST_TOKENS

_COLOURS = {"source": "#525252", "adapted": "#2563eb", "scratch": "#ea580c"}


def draw_adaptation(
    report: Mapping[str, Any], folders: Mapping[str, Path], path: str | Path
) -> None:
    """Write a PNG of a report of `measure_adaptation`.

    Args:
        report: what it returned.
        folders: of the checkpoints, whose `training_log.json` has the curves.
        path: of the PNG.
    """
    figure = Figure(figsize=(12, 3.8), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name in ("adapted", "scratch"):
        history = json.loads((folders[name] / "training_log.json").read_text())["history"]
        lines = [line for line in history if "text_nats" in line]
        steps, values = [line["step"] for line in lines], [line["text_nats"] for line in lines]
        left.plot(steps, values, color=_COLOURS[name], label=name)
        tried = report[name]["thresholds"]
        speeds = [one["tokens_per_forward"] for one in tried]
        shares = [one["exact"] for one in tried]
        middle.plot(speeds, shares, "o-", color=_COLOURS[name], label=name)
    middle.axhline(report["source"]["sums"]["exact"], color=_COLOURS["source"], linestyle=":")
    middle.axvline(LEAST_TOKENS, color=_COLOURS["source"], linestyle=":")
    names = list(_COLOURS)
    bits = [report[name]["bits_per_byte"]["value"] for name in names]
    right.bar(names, bits, color=[_COLOURS[name] for name in names])
    left.set(xlabel="optimiser step", ylabel="nats per token", title="training loss")
    middle.set(
        xlabel="tokens per forward", ylabel="sums right", title="thresholds (dots: source, aim)"
    )
    right.set(ylabel="bits per byte", title="held-out text (source: left to right)")
    for axes in (left, middle):
        axes.legend(frameon=False)
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
