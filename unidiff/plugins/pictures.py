"""Holes in pictures: a box as a mask, a hole shown as stripes."""

import numpy as np

Box = tuple[int, int, int, int]  # first row, first column, height, width


def box_mask(size: tuple[int, int], box: Box) -> np.ndarray:
    """(height, width) bool, True inside the box.

    Args:
        size: (width, height) of the picture.
        box: first row, first column, height, width in pixels.

    Raises:
        ValueError: if the box is empty or not inside the picture.
    """
    width, height = size
    row, column, box_height, box_width = box
    fits = row >= 0 and column >= 0 and row + box_height <= height and column + box_width <= width
    if box_height < 1 or box_width < 1 or not fits:
        raise ValueError(
            f"a box must lie inside the picture of {height} rows and {width} columns and hold a "
            f"pixel; got row {row}, column {column}, height {box_height}, width {box_width}"
        )
    mask = np.zeros((height, width), dtype=bool)
    mask[row : row + box_height, column : column + box_width] = True
    return mask


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
