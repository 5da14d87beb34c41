"""Three-section positions (time, row, column) of a token sequence.

Text and state tokens move all three sections together, which is exactly one-dimensional RoPE; so
does everything in a layout that `is_straight`. Elsewhere an image is a grid at one time, and so is
a value of a further modality with a grid; an action chunk is a timestep x dimension grid. The next
token continues after the largest position used. Own derivation along the lines of M-RoPE (Qwen2-VL,
arXiv 2409.12191, section 2.1); checked in tests/tokens/test_positions.py.
"""

# Shapes: L sequence.

import numpy as np

from .layout import MODALITY_IDS, TokenLayout


def sequence_positions(
    modality_L: np.ndarray, layout: TokenLayout, start: int = 0
) -> tuple[np.ndarray, int]:
    """Positions of a sequence and the position at which the next token continues.

    Args:
        modality_L: (L,) int. Index into `layout.modalities` of each token; a run of one grid
            modality holds whole grids one after the other, the last of which may be cut short.
        layout: gives the grid of each modality.
        start: position of the first token.

    Returns:
        ((3, L) int64 positions (time, row, column), next position). An empty sequence gives
        an empty array and `start`.

    Raises:
        ValueError: if an index is not a modality's.
    """
    modality_L = np.asarray(modality_L, dtype=np.int64)
    if modality_L.size == 0:
        return np.zeros((3, 0), dtype=np.int64), start
    names = layout.modalities
    if modality_L.min() < 0 or modality_L.max() >= len(names):
        raise ValueError(f"modality indices must lie in [0, {len(names)}), got {modality_L}")
    if layout.has_bare_pictures:
        return _with_bare_pictures(modality_L, layout, start)
    if layout.is_straight:
        stop = start + len(modality_L)
        return np.tile(np.arange(start, stop), (3, 1)), stop
    cuts = np.flatnonzero(np.diff(modality_L)) + 1
    runs = zip(np.r_[0, cuts], np.r_[cuts, len(modality_L)], strict=True)
    parts = []
    for first, stop in runs:
        grid = layout.grid_of(names[modality_L[first]])
        if grid is None:
            part = np.broadcast_to(np.arange(start, start + stop - first), (3, stop - first))
        else:
            part = _grid_run(stop - first, grid, start, modality_L[first] == MODALITY_IDS["action"])
        parts.append(part)
        start = int(part.max()) + 1 if grid is None else start + _span(stop - first, grid)
    return np.concatenate(parts, axis=1).astype(np.int64), start


def _with_bare_pictures(
    modality_L: np.ndarray, layout: TokenLayout, start: int
) -> tuple[np.ndarray, int]:
    """Positions of a sequence whose pictures have axes of their own; see `TokenLayout`."""
    stop = start + len(modality_L)
    position_3L = np.tile(np.arange(start, stop), (3, 1))
    place = np.flatnonzero(modality_L == MODALITY_IDS["image"])
    rows, columns = layout.image_grid
    picture, index = np.divmod(np.arange(len(place)), rows * columns)
    position_3L[:, place] = np.stack([-1 - picture, index // columns, index % columns])
    return position_3L, stop


def _span(length: int, grid: tuple[int, int]) -> int:
    """Positions that a run of whole (or one cut) grids takes up."""
    num_grids = -(-length // (grid[0] * grid[1]))
    return num_grids * max(grid)


def _grid_run(length: int, grid: tuple[int, int], start: int, rows_are_time: bool) -> np.ndarray:
    """(3, length) positions of grids that follow each other, the first at `start`."""
    rows, columns = grid
    index = np.arange(length)
    corner = start + index // (rows * columns) * max(grid)
    row = index % (rows * columns) // columns
    column = index % columns
    if rows_are_time:
        return np.stack([corner + row, corner, corner + column])
    return np.stack([corner, corner + row, corner + column])
