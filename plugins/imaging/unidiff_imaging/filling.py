"""Inpainting and outpainting: what is known of a picture stays, the rest is made up."""

# Shapes: H x W pixels of the canvas, h x w image codes.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature

from unidiff.cli import samplers
from unidiff.data.blocks import TrainingRow
from unidiff.plugins import DemoExample, Example, InfillTask, LoRADefaults, Metric

from .examples import MadeExamples, check_split
from .filling_data import demo_inpainting, demo_outpainting, filling_example, random_box
from .judges import text_match
from .pixels import as_pixels, cells_of, fitted, hole_at, hole_in, placed_hole, without_hole
from .quality import distance_to, psnr_to, ssim_to

# 0.78 of 120 pictures show what they should, 0.73 at the 0.4 of drawings.
TEMPERATURE = 0.2
_NUMBER = {"train": 40_000, "test": 1000}


@dataclass(frozen=True)
class Known:
    """A picture at the size of the canvas and where it is unknown.

    Attributes:
        pixels: (H, W, 3) uint8.
        hole: (H, W) bool, True where unknown.
    """

    pixels: np.ndarray
    hole: np.ndarray

    def pasted_into(self, picture: Image.Image) -> Image.Image:
        """The picture with every known pixel put back."""
        return Image.fromarray(np.where(self.hole[..., None], np.asarray(picture), self.pixels))


class FillRequest(BatchFeature):
    """Arguments of `generate()` that remember the picture they were made of."""

    known: Known


class Inpainting(InfillTask):
    """A picture with a hole in, the whole picture out.

    Codes of the canvas are made where a cell of it has an unknown pixel. What lies in the hole is
    not looked at: the codes beside it are those of a picture whose unknown pixels repeat the
    nearest known one.
    """

    name = "inpainting"
    summary = "Fill a hole in a picture."
    modalities = frozenset({"text", "image"})
    columns = {"image": "the whole picture"}
    lora = LoRADefaults(steps=300)

    def __init__(self, keep_pixels: bool = True) -> None:
        """The task.

        Args:
            keep_pixels: put every known pixel back, so that it is exactly the given one. Without,
                the picture is what the image tokenizer makes of the filled codes: known pixels
                then have the quality of its round trip, and the border of the hole shows no seam.
        """
        self.keep_pixels = keep_pixels

    @property
    def decoding(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The options of drawing scenes, colder."""
        return {**samplers.drawing(), "revision": None, "temperature": TEMPERATURE}

    def hole(self, picture: Image.Image, example: Example) -> np.ndarray:
        """(rows, columns) bool hole of an example; the middle half where it names none."""
        given = example.get("hole")
        return hole_in(picture, middle(picture.size) if given is None else given)

    def known(self, processor: Any, example: Example) -> Known:
        """The picture of an example at the size of the canvas, and its hole there.

        Raises:
            TypeError: if the picture is none.
            ValueError: if the hole does not fit the picture, or holds no pixel.
        """
        picture = processor.picture(example["image"])
        hole = self.hole(picture, example)
        grid = processor.layout.image_grid
        if hole.shape not in (tuple(grid), (picture.height, picture.width)):
            raise ValueError(
                f"a hole must have the shape of its picture, {(picture.height, picture.width)}, or "
                f"of the grid of codes, {tuple(grid)}; got {hole.shape}"
            )
        placed = placed_hole(hole, processor.image_processor, grid)
        if not placed.any():
            raise ValueError("the hole holds no pixel: nothing is to be filled")
        return Known(fitted(picture, processor.image_processor), placed)

    def parts(self, processor: Any, example: Example) -> Sequence[Mapping[str, Any]]:
        """The picture with its hole, and its text, all of which is known, where there is one."""
        known = self.known(processor, example)
        cells = cells_of(known.hole, processor.layout.image_grid)
        seen = processor.image_codes(without_hole(known.pixels, known.hole))
        codes = np.where(cells.reshape(-1), processor.image_codes(known.pixels), seen)
        parts: list[Mapping[str, Any]] = [{"type": "image", "codes": codes, "is_hole": cells}]
        if example.get("text") is not None:
            parts.append({"type": "text", "text": [str(example["text"])]})
        return parts

    def build(self, processor: Any, example: Example) -> FillRequest:
        """Arguments of `generate()`: the canvas, its hole masked."""
        request = FillRequest(dict(super().build(processor, example)))
        request.known = self.known(processor, example)
        return request

    def parse(self, processor: Any, ids: np.ndarray, inputs: BatchFeature) -> Image.Image:
        """The whole picture; its known pixels are put back if `keep_pixels` says so."""
        value = super().parse(processor, ids, inputs)
        picture = value["image"] if isinstance(value, dict) else value
        if self.keep_pixels and isinstance(inputs, FillRequest):
            return inputs.known.pasted_into(picture)
        return picture

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """The canvas with its answer; an example without a hole gets a random one."""
        if example.get("hole") is None and example.get("window") is None:
            picture = processor.picture(example["image"])
            box = random_box((picture.height, picture.width), rng)
            example = {**example, "hole": box, "window": box}
        return super().training_row(processor, example, rng)

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Photographs without a text, and then scenes with one."""
        check_split(split)
        number = _NUMBER[split] if limit is None else limit
        photographs = -(-number // 2)
        return MadeExamples(number, lambda index: filling_example(split, index, photographs))

    def metrics(self) -> Mapping[str, Metric]:
        """What the judges see, what became of the known pixels, and the hole against the truth."""
        return {
            "text_match": text_match,
            "known_psnr_db": psnr_to("image", self._known_at),
            "known_ssim": ssim_to("image", self._known_at),
            "hole_psnr_db": psnr_to("image", self._hole_at),
            "frechet": distance_to("image"),
        }

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """The lower half of a photograph, and half of an unseen scene from its caption."""
        return demo_inpainting(seed)

    def _hole_at(self, example: Example, shape: tuple[int, int]) -> np.ndarray:
        """(H, W) bool hole of an example at the size of its result."""
        picture = Image.fromarray(as_pixels(example["image"]))
        return hole_at(self.hole(picture, example), picture, shape)

    def _known_at(self, example: Example, shape: tuple[int, int]) -> np.ndarray:
        """(H, W) bool, the pixels that are known."""
        return ~self._hole_at(example, shape)


class Outpainting(Inpainting):
    """A window of the canvas is known, what lies around it is made up.

    "window" is first row, first column, height and width in pixels of the picture; nothing outside
    it is looked at. The middle half where an example names none.
    """

    name = "outpainting"
    summary = "Extend a picture beyond its borders."

    def hole(self, picture: Image.Image, example: Example) -> np.ndarray:
        """(rows, columns) bool, True outside the window."""
        window = example.get("window")
        return ~hole_in(picture, middle(picture.size) if window is None else window)

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Photographs without a text, and then scenes with one, of which a window is known."""
        check_split(split)
        number = _NUMBER[split] if limit is None else limit
        photographs = -(-number // 2)
        return MadeExamples(
            number, lambda index: filling_example(split, index, photographs, is_window=True)
        )

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """The middle of a photograph."""
        return demo_outpainting(seed)


def middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Box of half the height and width in the middle of a picture of (width, height) pixels."""
    width, height = size
    return height // 4, width // 4, max(1, height // 2), max(1, width // 2)
