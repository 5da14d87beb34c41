"""Reading a drawn scene back from its pixels, and judging a drawing against a request.

The judge sees pixels only. A pixel belongs to an object where it is colourful (the background is
grey); its hue names the colour, because mixing a colour with grey keeps the hue; connected pixels
of one colour form an object; its shape is the best fitting template. Written for pictures that
went through a lossy autoencoder: blurred edges, noise, small specks.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .scenes import (
    COLOURS,
    IMAGE_SIZE,
    SHAPES,
    Scene,
    SceneObject,
    relation_between,
    shape_coverage,
)

UNCLEAR = "unclear"  # the shape of a blob that fits no template
_MIN_COVERAGE = 0.45  # share of a colour's full chroma from which a pixel counts as object
_MIN_AREA = 14  # px: smaller blobs are specks (the smallest object shows about 30)
_MAX_MISFIT = 0.45  # squared error over squared template; own measurement, see the tests
_PATCH = 18  # px: window of the shape templates
_TEMPLATE_SIZES = (7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0)  # px
_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


@dataclass(frozen=True)
class SeenObject:
    """One object read from pixels: colour, shape, centre (row, column) in px, area in px."""

    colour: str
    shape: str
    centre: tuple[float, float]
    area: float


def read_scene(image: np.ndarray) -> list[SeenObject]:
    """The objects in a picture, from top to bottom (ties: left to right).

    Args:
        image: (32, 32, 3) uint8.

    Returns:
        One entry per object; a blob that fits no shape gets the shape `unclear`.

    Raises:
        ValueError: if the image has another size or type.
    """
    if image.shape != (IMAGE_SIZE, IMAGE_SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(f"expected (32, 32, 3) uint8; got {image.shape} {image.dtype}")
    coverage, colour_index = _coverage_and_colour(image.astype(np.float32))
    seen = []
    for mask in _components(coverage >= _MIN_COVERAGE, colour_index):
        seen.append(_read_object(mask, coverage, colour_index))
    return sorted(seen, key=lambda item: item.centre)


def scene_matches(image: np.ndarray, request: Scene) -> bool:
    """Whether a picture shows exactly the requested objects in the requested relation.

    Args:
        image: (32, 32, 3) uint8.
        request: one object, or two in a relation; sizes, places and background do not matter.

    Raises:
        ValueError: if the request has more than two objects, or the image is no scene picture.
    """
    if not 1 <= len(request.objects) <= 2:
        raise ValueError(f"a request names 1 or 2 objects; got {len(request.objects)}")
    seen = read_scene(image)
    wanted = [(item.colour, item.shape) for item in request.objects]
    if sorted(wanted) != sorted((item.colour, item.shape) for item in seen):
        return False
    if request.anchor is None:
        return True
    by_name = {(item.colour, item.shape): item for item in seen}
    drawn = [
        SceneObject(*name, row=by_name[name].centre[0], column=by_name[name].centre[1], size=0.0)
        for name in wanted
    ]
    return relation_between(*drawn) == relation_between(*request.anchor)


@cache
def _colour_axes() -> tuple[np.ndarray, np.ndarray]:
    """(6, 3) unit vectors of the colours without their grey part, and their (6,) lengths."""
    chroma = np.array(list(COLOURS.values()), dtype=np.float32)
    chroma -= chroma.mean(axis=1, keepdims=True)
    length = np.linalg.norm(chroma, axis=1)
    return chroma / length[:, None], length


def _coverage_and_colour(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(32, 32) float share of the nearest colour in each pixel, and its (32, 32) index."""
    axes, length = _colour_axes()
    chroma = image - image.mean(axis=2, keepdims=True)
    along = chroma @ axes.T
    index = along.argmax(axis=2)
    coverage = along.max(axis=2) / length[index]
    return np.clip(coverage, 0.0, 1.0), index


def _components(is_object: np.ndarray, colour_index: np.ndarray) -> list[np.ndarray]:
    """(32, 32) bool mask of each connected region of one colour that is no speck."""
    label = np.where(is_object, colour_index, -1)
    masks = []
    for start in np.argwhere(is_object).tolist():
        colour = label[start[0], start[1]]
        if colour < 0:
            continue
        region = _flood(label, (start[0], start[1]), int(colour))
        if len(region) >= _MIN_AREA:
            mask = np.zeros_like(is_object)
            mask[tuple(np.array(region).T)] = True
            masks.append(mask)
    return masks


def _flood(label: np.ndarray, start: tuple[int, int], colour: int) -> list[tuple[int, int]]:
    """Pixels of one colour connected to `start`; they are set to -1 in `label`."""
    label[start] = -1
    region = [start]
    for row, column in region:  # grows while it is walked
        for down, right in _NEIGHBOURS:
            pixel = (row + down, column + right)
            inside = 0 <= pixel[0] < IMAGE_SIZE and 0 <= pixel[1] < IMAGE_SIZE
            if inside and label[pixel] == colour:
                label[pixel] = -1
                region.append(pixel)
    return region


def _read_object(mask: np.ndarray, coverage: np.ndarray, colour_index: np.ndarray) -> SeenObject:
    """Name one region by the median colour of its pixels and its best fitting template."""
    colour = int(np.bincount(colour_index[mask]).argmax())
    near = mask.copy()  # the soft edge, one pixel around the region
    near[1:] |= mask[:-1]
    near[:-1] |= mask[1:]
    near[:, 1:] |= mask[:, :-1]
    near[:, :-1] |= mask[:, 1:]
    weight = np.where(near & (colour_index == colour), coverage, 0.0)
    area = float(weight.sum())
    axis = np.arange(IMAGE_SIZE) + 0.5
    centroid = (float(weight.sum(1) @ axis) / area, float(weight.sum(0) @ axis) / area)
    return SeenObject(
        colour=tuple(COLOURS)[colour],
        shape=_best_shape(weight, centroid),
        centre=_middle(mask),
        area=area,
    )


def _middle(mask: np.ndarray) -> tuple[float, float]:
    """Centre (row, column) of a mask's bounding box, in px."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(rows[0] + rows[-1] + 1) / 2, float(columns[0] + columns[-1] + 1) / 2


def _best_shape(weight: np.ndarray, centroid: tuple[float, float]) -> str:
    """The shape whose template differs least from a soft mask; `unclear` if none is close."""
    corner = [int(np.floor(value)) - _PATCH // 2 for value in centroid]
    padded = np.pad(weight, _PATCH)
    top, left = corner[0] + _PATCH, corner[1] + _PATCH
    patch = padded[top : top + _PATCH, left : left + _PATCH]
    steps = [min(3, int((value - np.floor(value)) * 4)) for value in centroid]
    names, templates = _templates(*steps)
    misfit = ((templates - patch) ** 2).sum(axis=(1, 2)) / (templates**2).sum(axis=(1, 2))
    best = int(misfit.argmin())
    return names[best] if misfit[best] <= _MAX_MISFIT else UNCLEAR


@cache
def _templates(row_step: int, column_step: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and (n, 18, 18) soft masks whose centroid lies a quarter-pixel step off the middle."""
    row = _PATCH // 2 + (row_step + 0.5) / 4
    column = _PATCH // 2 + (column_step + 0.5) / 4
    names, masks = [], []
    for shape in SHAPES:
        for size in _TEMPLATE_SIZES:
            # an upright triangle's centroid lies a sixth of its height below the box centre
            lift = size / 6 if shape == "triangle" else 0.0
            coverage, top, left = shape_coverage(shape, row - lift, column, size)
            mask = np.zeros((_PATCH, _PATCH), dtype=np.float32)
            mask[top : top + coverage.shape[0], left : left + coverage.shape[1]] = coverage
            names.append(shape)
            masks.append(_soften(mask))
    return tuple(names), np.stack(masks)


def _soften(mask: np.ndarray) -> np.ndarray:
    """The mask blurred a little, halfway between a clean edge and an autoencoder's."""
    for axis in (0, 1):
        mask = 0.7 * mask + 0.15 * (np.roll(mask, 1, axis) + np.roll(mask, -1, axis))
    return mask
