"""The picture of `unidiff bench decode`: tokens per second, and ratios between floor and aim."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_COLOURS = {"aim": "tab:green", "floor": "tab:orange", "below": "tab:red", "none": "tab:grey"}


def draw_decode_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a PNG of a report.

    Args:
        report: of `run_decode_benchmark`, with at least one round.
        path: of the PNG; its folder is made.

    Raises:
        ValueError: if the report has no round.
    """
    from matplotlib.figure import Figure

    if not report["num_rounds"]:
        raise ValueError("the report has no finished round, so there is nothing to draw")
    figure = Figure(figsize=(13, 5.5), dpi=110, layout="constrained")
    speeds, ratios = figure.subplots(1, 2)
    _draw_speeds(speeds, report)
    _draw_ratios(ratios, report["ratios"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_speeds(axes: Any, report: Mapping[str, Any]) -> None:
    """Bars of tokens per second after the prefill, with dots for the whole call."""
    found = {n: c for n, c in report["contestants"].items() if "tokens_per_second" in c}
    names = sorted(found, key=lambda name: found[name]["tokens_per_second"])
    rates = [found[name]["tokens_per_second"] for name in names]
    colours = ["tab:blue" if name.startswith("unidiff") else "tab:grey" for name in names]
    bars = axes.barh(names, rates, color=colours)
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    whole = [found[name]["end_to_end_tokens_per_second"] for name in names]
    axes.plot(whole, names, "k|", markersize=10, label="with the prefill")
    axes.set(xlabel="tokens per second after the prefill", title="median of all rounds")
    axes.margins(x=0.15)
    axes.legend(loc="lower right")


def _draw_ratios(axes: Any, ratios: Mapping[str, Mapping[str, Any]]) -> None:
    """Bars of each ratio as a share of its aim, a mark at the floor; longer is better."""
    judged = {name: ratio for name, ratio in ratios.items() if "aim" in ratio}
    names = list(judged)[::-1]
    for row, name in enumerate(names):
        ratio = judged[name]
        share, floor = (_share(ratio, ratio[key]) for key in ("value", "floor"))
        kind = "aim" if ratio["reaches_aim"] else "floor" if ratio["passes"] else "below"
        axes.barh(row, share, color=_COLOURS[kind])
        axes.plot([floor, floor], [row - 0.4, row + 0.4], "k-", linewidth=2)
        label = f"{ratio['value']:.3g} (floor {ratio['floor']:g}, aim {ratio['aim']:g})"
        axes.text(share, row, f" {label}", va="center", fontsize=8)
    axes.axvline(1.0, color="k", linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="share of the aim (dotted); black mark: floor", title="ratios")
    axes.margins(x=0.35)


def _share(ratio: Mapping[str, Any], value: float) -> float:
    """A value as a share of the aim, so that longer is better."""
    if ratio["better"] == "higher":
        return value / float(ratio["aim"])
    return float(ratio["aim"]) / max(value, 1e-9)
