"""The report on reuse as a picture: speed against agreement, and against the judge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_reuse(report: Mapping[str, Any], path: str | Path) -> None:
    """Write a PNG of a report of `run_reuse_benchmark`.

    Args:
        report: what it returned.
        path: of the PNG.
    """
    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    kinds = report["kinds"]
    for name, numbers in kinds.items():
        speed = numbers["speed_over_none"]["median_of_pairs"]
        places = (
            (left, numbers["agreement"]["equal_tokens"]),
            (middle, numbers["judge_nats_per_token"]),
        )
        for axes, height in places:
            axes.scatter(speed, height, s=36)
            axes.annotate(name, (speed, height), xytext=(4, 4), textcoords="offset points")
        if "reuse" in numbers:
            rates = numbers["reuse"]["share_computed_per_layer"]
            right.plot(range(len(rates)), rates, marker="o", label=name)
    middle.axhline(report["real_text_judge_nats_per_token"], color="#525252", linestyle=":")
    left.set(xlabel="speed over no reuse", ylabel="share of equal tokens", title="agreement")
    middle.set(xlabel="speed over no reuse", ylabel="nats per token", title="judge (dots: real)")
    right.set(xlabel="layer", ylabel="share of tokens computed", title="computed", ylim=(0, 1.05))
    right.legend(frameon=False, fontsize=8)
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
