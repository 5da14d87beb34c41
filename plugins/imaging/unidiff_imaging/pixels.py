"""Pixels: pictures as arrays at the size of the canvas, and where they are unknown."""

# Shapes: H x W pixels, h x w image codes.

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from unidiff.plugins.pictures import Box, box_mask
from unidiff.tokens.image_processing import UniDiffImageProcessor


def as_pixels(picture: Any) -> np.ndarray:
    """(H, W, 3) uint8 of a PIL picture, a path or an array.

    Raises:
        ValueError: if it is something else.
    """
    if isinstance(picture, (str, Path)):
        with Image.open(picture) as opened:
            picture = opened.convert("RGB")
    is_open = isinstance(picture, Image.Image)
    pixels = np.array(picture.convert("RGB")) if is_open else np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected an (H, W, 3) uint8 picture, got {pixels.shape} {pixels.dtype}")
    return pixels


def fitted(picture: Any, image_processor: UniDiffImageProcessor) -> np.ndarray:
    """(H, W, 3) uint8: the picture as the tokenizer sees it, padded or shrunk to the canvas."""
    values = image_processor(picture, return_tensors="pt")["pixel_values"]
    return np.asarray(image_processor.postprocess(values)[0])


def fitted_to(picture: Any, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W, 3) uint8: the picture at the size of a result, for measuring."""
    pixels = as_pixels(picture)
    return pixels if pixels.shape[:2] == shape[:2] else fitted(pixels, _processor(*shape[:2]))


def hole_in(picture: Image.Image, hole: Any) -> np.ndarray:
    """(H, W) bool hole in a picture's own pixels, or in cells of the canvas, as it was given.

    Args:
        picture: in which the hole is.
        hole: bool array, or a `Box` in pixels of the picture.

    Raises:
        ValueError: if it is neither.
    """
    mask = np.asarray(hole)
    if mask.ndim == 2 and mask.dtype == np.bool_:
        return mask
    if mask.shape == (4,) and np.issubdtype(mask.dtype, np.integer):
        row, column, height, width = (int(value) for value in mask)
        return box_mask(picture.size, (row, column, height, width))
    raise ValueError(
        "a hole must be a bool array of two axes, True where the picture is unknown, or row, "
        f"column, height and width in pixels; got {mask.dtype} of shape {mask.shape}"
    )


def placed_hole(
    hole: np.ndarray, image_processor: UniDiffImageProcessor, grid: tuple[int, int] | None = None
) -> np.ndarray:
    """(H, W) bool hole at the size of the canvas, placed there as its picture is.

    Args:
        hole: (rows, columns) bool, of the picture's size, or of the grid of codes.
        image_processor: places pictures.
        grid: (h, w) codes of the canvas; None: a hole of that shape is one of pixels.
    """
    size = image_processor.size
    height, width = size["height"], size["width"]
    if grid is not None and hole.shape == tuple(grid):
        rows, columns = height // grid[0], width // grid[1]
        return np.repeat(np.repeat(hole, rows, axis=0), columns, axis=1)
    white = np.repeat(hole[..., None], 3, axis=2).astype(np.uint8) * 255
    return fitted(white, image_processor).max(axis=2) > 0


def hole_at(hole: np.ndarray, picture: Image.Image, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool hole at the size of a result, for measuring.

    Args:
        hole: (rows, columns) bool, of the picture's size, or of the grid of codes.
        picture: in which the hole was given.
        shape: (H, W).
    """
    is_grid = hole.shape != (picture.height, picture.width)
    return placed_hole(hole, _processor(*shape), hole.shape if is_grid else None)


def cells_of(hole: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(h, w) bool, the codes of which at least one pixel lies in an (H, W) hole."""
    rows, columns = hole.shape[0] // grid[0], hole.shape[1] // grid[1]
    return hole.reshape(grid[0], rows, grid[1], columns).max(axis=(1, 3))


def without_hole(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The (H, W, 3) picture whose unknown pixels repeat the nearest known one.

    What lies in a hole would otherwise reach the codes beside it, for a code depends on its
    neighbours' pixels. A picture of which nothing is known becomes grey.
    """
    if hole.all():
        return np.full_like(pixels, 128)
    rows, columns = distance_transform_edt(hole, return_distances=False, return_indices=True)
    return pixels[rows, columns]


def on_canvas(picture: Image.Image, size: tuple[int, int], window: Box) -> tuple[np.ndarray, Box]:
    """A canvas with the picture in a window of it, and the box that the picture covers.

    The picture is shrunk or enlarged until it fills the window in one direction and stands in its
    middle; the rest of the canvas is grey.

    Args:
        picture: of any size.
        size: (height, width) of the canvas.
        window: box in pixels of the canvas.

    Returns:
        (H, W, 3) uint8 and the box.

    Raises:
        ValueError: if the window is empty or not inside the canvas.
    """
    box_mask((size[1], size[0]), window)
    row, column, height, width = window
    scale = min(height / picture.height, width / picture.width)
    rows, columns = (max(1, round(side * scale)) for side in (picture.height, picture.width))
    row, column = row + (height - rows) // 2, column + (width - columns) // 2
    canvas = np.full((*size, 3), 128, dtype=np.uint8)
    small = picture.convert("RGB").resize((columns, rows), Image.Resampling.BILINEAR)
    canvas[row : row + rows, column : column + columns] = np.asarray(small)
    return canvas, (row, column, rows, columns)


@cache
def _processor(height: int, width: int) -> UniDiffImageProcessor:
    """Places pictures on a canvas of this size."""
    return UniDiffImageProcessor(size={"height": height, "width": width})
