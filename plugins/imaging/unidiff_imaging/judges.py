"""Whether a picture shows what a sentence says: garments by a network, scenes by their pixels.

The network is the one that judges drawings in the host's suite: it has seen photographs alone.
"""

# Shapes: N pictures.

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from unidiff.data.sources.garments import caption_names_class
from unidiff.data.sources.scene_judge import SeenObject, read_scene
from unidiff.data.sources.scene_language import caption_matches
from unidiff.data.sources.scenes import COLOURS, SHAPES, Scene, SceneObject
from unidiff.evaluation.garment_judge import GarmentJudge, load_judge
from unidiff.plugins import Example

from .pixels import as_pixels, fitted_to

JUDGED_SIZE = 32  # px, the side of a picture that the judges can see
NEAR = 2.0  # px between the centres of an object wanted and one seen


@cache
def garment_judge() -> GarmentJudge:
    """The network, loaded once."""
    return load_judge()


def text_match(results: Sequence[Any], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64, 1 where a picture shows what its example's "text" or "caption" says, else 0.

    NaN where nobody can say: there is no text, it names no garment and no scene, or the picture is
    of another size than the judges know.
    """
    pairs = zip(results, examples, strict=True)
    return np.array([_verdict(one, e.get("text") or e.get("caption")) for one, e in pairs])


def _verdict(picture: Any, text: str | None) -> float:
    """1.0, 0.0 or NaN of one picture."""
    pixels = as_pixels(picture)
    if text is None or pixels.shape[:2] != (JUDGED_SIZE, JUDGED_SIZE):
        return float("nan")
    label = caption_names_class(text)
    if label is not None:
        return float(garment_judge().classify(pixels[None])[0] == label)
    if names_scene(text):
        return float(caption_matches(text, seen_scene(pixels)))
    return float("nan")


def names_scene(text: str) -> bool:
    """Whether a text names an object of a drawn scene."""
    return any(f"{colour} {shape}" in text for colour in COLOURS for shape in SHAPES)


def seen_scene(pixels: np.ndarray) -> Scene:
    """What the judge reads from a (32, 32, 3) uint8 picture, as a scene on black."""
    seen = read_scene(pixels)
    objects = [SceneObject(one.colour, one.shape, *one.centre, size=0.0) for one in seen]
    return Scene(tuple(objects), background=0)


def seen_objects(result: Any) -> str:
    """The names of what the judge reads from a picture, such as "blue square, red circle"."""
    names = [item.name for item in seen_scene(as_pixels(result)).objects]
    return ", ".join(sorted(names)) or "nothing"


def edit_success(results: Sequence[Any], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64, 1 where a picture shows the objects of "edited", each at its place.

    Both pictures are read by the same judge of scenes; an object may be `NEAR` px off.
    """
    pairs = zip(results, examples, strict=True)
    return np.array([_same_objects(as_pixels(one), example["edited"]) for one, example in pairs])


def _same_objects(pixels: np.ndarray, wanted: Any) -> float:
    """1.0 where both pictures hold the same objects at the same places."""
    seen, expected = (
        _placed(read_scene(pixels)),
        _placed(read_scene(fitted_to(wanted, pixels.shape))),
    )
    if [name for name, _ in seen] != [name for name, _ in expected]:
        return 0.0
    offsets = [
        np.abs(np.subtract(a, b)).max() for (_, a), (_, b) in zip(seen, expected, strict=True)
    ]
    return float(all(offset <= NEAR for offset in offsets))


def _placed(objects: Sequence[SeenObject]) -> list[tuple[tuple[str, str], tuple[float, float]]]:
    """(colour and shape, centre) of each object, in order of the names."""
    return sorted(((one.colour, one.shape), one.centre) for one in objects)
