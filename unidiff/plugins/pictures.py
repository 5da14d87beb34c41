"""Pictures of what a task was asked: a hole shown as stripes."""

import numpy as np


def with_hole(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 copy of a picture, striped where it is unknown.

    Args:
        picture: (H, W, 3) uint8.
        hole: (h, w) bool, True where unknown; h and w divide H and W.

    Raises:
        ValueError: if they do not divide.
    """
    height, width = picture.shape[:2]
    if height % hole.shape[0] or width % hole.shape[1]:
        raise ValueError(
            f"a hole of shape {hole.shape} does not divide a picture of {picture.shape}"
        )
    rows, columns = height // hole.shape[0], width // hole.shape[1]
    covered = np.repeat(np.repeat(hole, rows, axis=0), columns, axis=1)
    stripes = (np.indices(covered.shape).sum(axis=0) // 2) % 2 == 0
    shaded = picture.copy()
    shaded[covered] = (235, 235, 240)
    shaded[covered & stripes] = (200, 200, 212)
    return shaded
