"""Pictures with holes: the examples of inpainting and outpainting, and what is shown of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unidiff.data.sources.garments import CLASS_NAMES, draw_caption, with_article
from unidiff.data.sources.held_out import held_out, scene_pictures
from unidiff.data.sources.scene_language import caption
from unidiff.data.sources.scenes import ALIGNED, IMAGE_SIZE, SceneObject, render_scene
from unidiff.plugins import DemoExample, Example
from unidiff.plugins.pictures import Box, box_mask, with_hole

from .judges import seen_objects, text_match
from .pictures import photograph, scene_of
from .pixels import as_pixels

SMALLEST, LARGEST = 0.25, 0.75  # sides of a random box, as shares of the picture's
_HALF = IMAGE_SIZE // 2
WINDOW: Box = (IMAGE_SIZE // 4, IMAGE_SIZE // 4, _HALF, _HALF)


def random_box(size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A random box in a picture of (height, width) pixels."""
    sides = [max(1, int(rng.uniform(SMALLEST, LARGEST) * side)) for side in size]
    corner = [int(rng.integers(0, side - part + 1)) for side, part in zip(size, sides, strict=True)]
    return corner[0], corner[1], sides[0], sides[1]


def filling_example(split: str, index: int, photographs: int, is_window: bool = False) -> Example:
    """The example of that number: a photograph below `photographs`, a scene with its text above.

    "caption" says what a photograph shows; the model is not told, the judges are.

    Args:
        split: "train" or "test".
        index: of the example.
        photographs: how many examples are photographs.
        is_window: name the known window instead of the hole.
    """
    rng = np.random.default_rng([index, len(split)])
    example: dict[str, Any] = {}
    if index < photographs:
        picture, label = photograph(split, index)
        example = {"image": picture, "caption": draw_caption(label, rng)}
    else:
        scene = scene_of(split, "filling", index - photographs, 2)
        example = {"image": render_scene(scene), "text": caption(scene, rng)}
    box = random_box((IMAGE_SIZE, IMAGE_SIZE), rng)
    return {**example, "window" if is_window else "hole": box}


def demo_inpainting(seed: int) -> Sequence[DemoExample]:
    """The lower half of a photograph, and the half of a scene where its second object is."""
    data = held_out(seed)
    index = int(data.choose_photographs(8, 1)[0])
    photo = {"image": data.photographs[index], "hole": (_HALF, 0, _HALF, IMAGE_SIZE)}
    truth = with_article(CLASS_NAMES[int(data.labels[index])])
    scene = data.choose_scenes(8, 1, num_objects=2)[0]
    said, picture = caption(scene, data.rng(8)), scene_pictures([scene])[0]
    filled = {"image": picture, "hole": _second_half(*scene.objects), "text": said}
    return [
        DemoExample(
            photo,
            "the lower half",
            truth=truth,
            said=lambda result: "",
            pictures=lambda result: _triple(photo, result),
            section="Filling pictures",
        ),
        DemoExample(
            filled,
            f"half of: {said}",
            truth=said,
            is_right=lambda result: bool(text_match([result], [filled])[0]),
            said=lambda result: f"read back: {seen_objects(result)}",
            pictures=lambda result: _triple(filled, result),
            section="Filling pictures",
        ),
    ]


def demo_outpainting(seed: int) -> Sequence[DemoExample]:
    """What lies around the middle of a photograph."""
    data = held_out(seed)
    index = int(data.choose_photographs(11, 1)[0])
    example = {"image": data.photographs[index], "window": WINDOW}
    hole = ~box_mask((IMAGE_SIZE, IMAGE_SIZE), WINDOW)
    return [
        DemoExample(
            example,
            "all around the middle",
            truth=with_article(CLASS_NAMES[int(data.labels[index])]),
            said=lambda result: "",
            pictures=lambda result: [
                with_hole(example["image"], hole),
                as_pixels(result),
                example["image"],
            ],
            section="Filling pictures",
        )
    ]


def _triple(example: Example, result: Any) -> list[np.ndarray]:
    """The picture with its hole striped, the filled one, the original."""
    hole = box_mask((IMAGE_SIZE, IMAGE_SIZE), example["hole"])
    return [with_hole(example["image"], hole), as_pixels(result), example["image"]]


def _second_half(first: SceneObject, second: SceneObject) -> Box:
    """The half of the picture on the second object's side of the first."""
    is_across = abs(first.row - second.row) <= ALIGNED
    offset = second.column - first.column if is_across else second.row - first.row
    start = _HALF if offset > 0 else 0
    return (0, start, IMAGE_SIZE, _HALF) if is_across else (start, 0, _HALF, IMAGE_SIZE)
