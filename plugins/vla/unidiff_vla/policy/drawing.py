"""The picture of one chunk's decoding: which token was revealed when, how sure, and what came back.

`unidiff trace` draws a text or one map per grid, in which a token has one step. Here a token has a
line of its own, because secondary remasking reveals it several times.
"""

# Shapes: T timesteps, D dimensions of bins; of other action tokens the rows and columns of their
# grid stand in their place.

from pathlib import Path
from typing import Any

import numpy as np

from unidiff.generation.trace import Trace

_MOST_LABELS = 40


def num_reveals(trace: Trace, shape: tuple[int, int]) -> np.ndarray:
    """(T, D) int64, how often each token was revealed: 0 pinned, 1 fixed, more where remasked.

    Args:
        trace: reveals of one row.
        shape: (T, D) of the chunk.

    Raises:
        ValueError: if the trace does not belong to a chunk of that shape.
    """
    size = shape[0] * shape[1]
    if len(trace) and max(trace.index) >= size:
        raise ValueError(
            f"the trace reveals place {max(trace.index)}, a chunk of {shape} has {size} places: "
            "pass the grid of the action bins of the policy that made it"
        )
    return np.bincount(np.array(trace.index, dtype=np.int64), minlength=size).reshape(shape)


def draw_remasking(trace: Trace, path: str | Path, shape: tuple[int, int]) -> None:
    """Write a PNG: tokens down, forwards across, confidence as colour.

    A token that was given back after a reveal has a red ring there and a dotted line to its next
    reveal. The trace does not say in which of the forwards between it was given back.

    Args:
        trace: reveals of one row, `ChunkRecord.traces[i]`.
        path: of the PNG; its folder must exist.
        shape: (T, D) of the chunk.

    Raises:
        ValueError: if nothing was revealed, or the trace does not belong to such a chunk.
    """
    from matplotlib.figure import Figure

    counts = num_reveals(trace, shape)
    if not len(trace):
        raise ValueError("nothing was revealed, so there is nothing to draw: all was pinned")
    steps, index = np.array(trace.step), np.array(trace.index)
    figure = Figure(figsize=(3 + 0.35 * max(8, steps.max()), 2 + 0.2 * counts.size), dpi=110)
    axes = figure.subplots()
    _draw_returns(axes, steps, index)
    dots = axes.scatter(
        steps, index, c=trace.confidence, cmap="viridis", vmin=0, vmax=1, s=48, zorder=2
    )
    _label(axes, shape, int(steps.max()))
    again = int(counts.sum() - (counts > 0).sum())
    axes.set(title=f"reveals of a chunk; {again} given back and revealed again")
    figure.colorbar(dots, ax=axes, label="confidence")
    figure.savefig(path, bbox_inches="tight")


def _draw_returns(axes: Any, steps: np.ndarray, index: np.ndarray) -> None:
    """A ring at each reveal that did not last, and a dotted line to the token's next one."""
    for place in np.unique(index):
        own = np.sort(steps[index == place])
        if len(own) > 1:
            axes.plot(own, [place] * len(own), ":", color="tab:red", zorder=1)
            rings = [place] * (len(own) - 1)
            axes.scatter(own[:-1], rings, s=130, facecolors="none", edgecolors="tab:red", zorder=3)


def _label(axes: Any, shape: tuple[int, int], last_step: int) -> None:
    """Names of the axes; a line between timesteps."""
    size = shape[0] * shape[1]
    axes.set(xlabel="forward", ylabel="timestep, dimension", xlim=(0.5, last_step + 0.5))
    axes.set_ylim(size - 0.5, -0.5)
    for timestep in range(1, shape[0]):
        axes.axhline(timestep * shape[1] - 0.5, color="0.85", linewidth=0.8, zorder=0)
    if size <= _MOST_LABELS:
        names = [f"{place // shape[1]}, {place % shape[1]}" for place in range(size)]
        axes.set_yticks(range(size), names, fontsize=7)
