"""What a sweep found: a row for each cell beside its reference, as JSON, as a table, as a plot."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .intervals import paired_difference
from .report import plain
from .tradeoff import DEFAULT, REFERENCE, Cell, Measured

Row = Mapping[str, Any]
_MARKERS = "osv^<>DPX*dphH8"
_POINTS = 100.0
_HIDDEN = ("batch_size", "do_sample", "unmasking_strategy")


def summarise(
    sweep: Mapping[str, Any], found: Collection[tuple[Cell, Measured]]
) -> list[dict[str, Any]]:
    """One row for each cell: how good, how fast, and how it compares with its reference.

    Args:
        sweep: see `load_sweep`.
        found: cells with their results, among them every task's reference.
    """
    references = {cell.task: one for cell, one in found if cell.label == REFERENCE}
    return [_row(sweep, cell, one, references[cell.task]) for cell, one in found]


def _row(
    sweep: Mapping[str, Any], cell: Cell, measured: Measured, reference: Measured
) -> dict[str, Any]:
    """What the report says of one cell."""
    scores = {}
    for name, values in measured.scores.items():
        pair = paired_difference(values, reference.scores[name])
        scores[name] = {
            "mean": float(values.mean()),
            "difference_points": _POINTS * pair.mean,
            "lower_bound_points": _POINTS * pair.lower_bound,
        }
    table = sweep[cell.task]
    keeps_up = all(s["lower_bound_points"] > -sweep["margin_points"] for s in scores.values())
    if "most_forwards" in table:
        is_fast = measured.forwards_per_request <= table["most_forwards"]
    else:
        is_fast = measured.tokens_per_forward >= table["least_tokens_per_forward"]
    return plain(
        {
            "task": cell.task,
            "label": cell.label,
            "sampler": dict(cell.options),
            "num_inputs": len(next(iter(measured.scores.values()))),
            "num_samplings": measured.num_samplings,
            "seed": cell.seed,
            "checkpoint": cell.checkpoint,
            "scores": scores,
            "tokens_per_forward": measured.tokens_per_forward,
            "forwards_per_request": measured.forwards_per_request,
            "tokens_per_request": measured.num_tokens / max(1, measured.num_requests),
            "cpu_seconds": measured.cpu_seconds,
            "details": measured.details,
            "keeps_up": keeps_up,
            "is_fast": is_fast,
        }
    )


def markdown_table(rows: Sequence[Row]) -> str:
    """All rows, task by task; differences are in points against one token per step."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        ours = [row for row in rows if row["task"] == task]
        names = list(ours[0]["scores"])
        lines += [f"\n### {task.replace('_', ' ')}: {_inputs(ours[0])}", ""]
        columns = [f"{name} (difference, lower bound)" for name in names]
        heads = ["strategy", "setting", "tokens / forward", "forwards", *columns]
        lines += [_line(heads), _line(["---"] * len(heads))]
        shared = _shared(ours)
        lines += [_line(_cells(row, names, shared)) for row in ours]
        lines += ["", f"All with {_options(shared)}." if shared else ""]
    return "\n".join(lines).strip() + "\n"


def _inputs(row: Row) -> str:
    """How much was asked."""
    times = f", each sampled {row['num_samplings']} times" if row["num_samplings"] > 1 else ""
    return f"{row['num_inputs']} inputs{times}"


def draw_tradeoff(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG: quality over tokens per forward, a panel for each task.

    Args:
        rows: of `unidiff.evaluation.tradeoff.summarise`.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    labels = [one for one in dict.fromkeys(row["label"] for row in rows) if one not in _SPECIAL]
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    size = (4.2 * columns + 2.4, 3.4 * lines)
    figure = Figure(figsize=size, dpi=80, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, task in zip(panels, tasks, strict=False):
        _panel(axes, [row for row in rows if row["task"] == task], labels)
    for axes in panels[len(tasks) :]:
        axes.axis("off")
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    figure.savefig(path)


_SPECIAL = {REFERENCE: ("k", "*", 140), DEFAULT: ("r", "o", 120)}


def _panel(axes: Any, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """One task: a line with markers for each strategy, star and ring for the special cells."""
    name = next(iter(rows[0]["scores"]))
    for number, label in enumerate(labels):
        ours = sorted(
            (row["tokens_per_forward"], row["scores"][name]["mean"])
            for row in rows
            if row["label"] == label
        )
        style = {"marker": _MARKERS[number % len(_MARKERS)], "color": f"C{number % 10}"}
        if ours:
            axes.plot(*zip(*ours, strict=True), label=label, markersize=5, linewidth=0.8, **style)
    for label, (colour, marker, size) in _SPECIAL.items():
        for row in rows:
            if row["label"] == label:
                place = row["tokens_per_forward"], row["scores"][name]["mean"]
                face = colour if label == REFERENCE else "none"
                axes.scatter(
                    *place, s=size, marker=marker, edgecolors=colour, facecolors=face, label=label
                )
    axes.set(
        title=f"{rows[0]['task'].replace('_', ' ')} ({_inputs(rows[0])})",
        xlabel="tokens per forward",
        ylabel=name.replace("_", " "),
    )
    axes.grid(alpha=0.2)


def _cells(row: Row, names: Sequence[str], shared: Mapping[str, Any]) -> list[str]:
    """The columns of one row."""
    sampler = row["sampler"]
    strategy = sampler["unmasking_strategy"]
    if row["label"] in _SPECIAL:
        strategy = f"**{row['label']}** ({strategy})"
    own = {name: value for name, value in sampler.items() if name not in shared}
    numbers = [f"{row['tokens_per_forward']:.2f}", f"{row['forwards_per_request']:.2f}"]
    scores = [
        f"{one['mean']:.4f} ({one['difference_points']:+.2f}, {one['lower_bound_points']:+.2f})"
        for one in (row["scores"][name] for name in names)
    ]
    return [strategy, _options(own), *numbers, *scores]


def _shared(rows: Sequence[Row]) -> dict[str, Any]:
    """The options that all rows have in common."""
    first = rows[0]["sampler"]
    return {
        name: value
        for name, value in first.items()
        if all(row["sampler"].get(name) == value for row in rows)
    }


def _options(options: Mapping[str, Any]) -> str:
    """Options in one line."""
    shown = [f"{name}={value}" for name, value in options.items() if name not in _HIDDEN]
    return ", ".join(shown) or "-"


def _line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
