"""Super-resolution: a coarse picture, or a small grid of codes, becomes a full grid of codes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

from unidiff.cli import samplers
from unidiff.data.blocks import TrainingRow
from unidiff.data.sources.held_out import held_out
from unidiff.data.sources.scenes import render_scene
from unidiff.plugins import ChatTask, DemoExample, Example, LoRADefaults, Metric, shown, user

from .examples import MadeExamples, check_split
from .pictures import photograph, scene_of
from .pixels import as_pixels
from .quality import distance_to, psnr_db, psnr_to, ssim_to

FACTOR = 4  # pixels of the full picture per pixel of the coarse one, along each side
REQUEST = "make the picture sharp."
_NUMBER = {"train": 40_000, "test": 1000}


class SuperResolution(ChatTask):
    """The user shows a coarse picture, enlarged to full size; the answer is the full picture."""

    name = "super_resolution"
    summary = "Make a coarse picture, or a small grid of codes, a full picture."
    is_in_base = False
    adapter = Path(__file__).parent / "adapters" / "super_resolution"
    modalities = frozenset({"text", "image"})
    columns = {
        "image": 'the coarse picture of any smaller size, or {"codes": a smaller grid}',
        "sharp": "the full picture",
    }
    lora = LoRADefaults(r=32, alpha=64, learning_rate=3e-3, steps=1200, batch_size=16)
    wanted = "image"

    @property
    def decoding(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Twelve steps, the certain codes first, without guidance."""
        return {**samplers.drawing("garment"), "guidance_scale": 1.0, "temperature": 0.4}

    def messages(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The user shows the enlarged picture and asks for a sharp one."""
        return [user(shown(example["image"]), REQUEST)]

    def answer(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The full picture."""
        return [shown(example["sharp"])]

    def build(self, processor: Any, example: Example) -> BatchFeature:
        """Arguments of `generate()`: the enlarged picture, and a whole canvas."""
        return super().build(processor, _with_enlarged(processor, example))

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """The enlarged picture, answered by the full one."""
        return super().training_row(processor, _with_enlarged(processor, example), rng)

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Photographs and drawn scenes in turn, a quarter of their size along each side."""
        check_split(split)
        number = _NUMBER[split] if limit is None else limit
        return MadeExamples(number, lambda index: _example(_picture(split, index)))

    def metrics(self) -> Mapping[str, Metric]:
        """Nearness to the full picture, and of all pictures to all full ones."""
        return {
            "psnr_db": psnr_to("sharp"),
            "ssim": ssim_to("sharp"),
            "frechet": distance_to("sharp"),
        }

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Two photographs and a scene: coarse, result, truth."""
        data = held_out(seed)
        pictures = [data.photographs[index] for index in data.choose_photographs(12, 2)]
        pictures += [render_scene(scene) for scene in data.choose_scenes(12, 1, num_objects=2)]
        return [_shown(picture) for picture in pictures]


def coarse(picture: np.ndarray, factor: int = FACTOR) -> np.ndarray:
    """(H / factor, W / factor, 3) uint8 means of the cells of an (H, W, 3) uint8 picture.

    Raises:
        ValueError: if the factor does not divide both sides.
    """
    height, width = picture.shape[:2]
    if height % factor or width % factor:
        raise ValueError(f"a factor of {factor} does not divide a picture of {height} x {width}")
    cells = picture.reshape(height // factor, factor, width // factor, factor, 3)
    return np.rint(cells.mean((1, 3))).astype(np.uint8)


def enlarged_to_full(processor: Any, image: Any) -> Image.Image:
    """The picture, or the picture of a smaller grid of codes, enlarged until it fills the canvas.

    Args:
        processor: of the checkpoint.
        image: what `processor.picture` takes, or {"codes": (h, w) ints}. A picture larger than
            the canvas is shrunk; the sides keep their ratio.

    Raises:
        ValueError: if the codes are no grid, or lie outside the codebook.
    """
    if isinstance(image, Mapping) and image.get("codes") is not None:
        image = _decoded(processor, np.asarray(image["codes"]))
    elif isinstance(image, Mapping):
        image = image.get("image", image.get("path"))
    picture = processor.picture(image)
    size = processor.image_processor.size
    scale = min(size["height"] / picture.height, size["width"] / picture.width)
    sides = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)


def _decoded(processor: Any, codes: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 picture of an (h, w) grid of codes of any size."""
    size = processor.layout.range_of("image").size
    if codes.ndim != 2 or not codes.size or codes.min() < 0 or codes.max() >= size:
        raise ValueError(f"codes must be an (h, w) grid of 0..{size - 1}, got shape {codes.shape}")
    model = processor.image_tokenizer
    batch = torch.from_numpy(codes.astype(np.int64).reshape(1, -1)).to(model.device)
    pixels = model.decode_image_tokens(batch, codes.shape)
    return np.asarray(processor.image_processor.postprocess(pixels)[0])


def _with_enlarged(processor: Any, example: Example) -> Example:
    """The example with its coarse picture enlarged."""
    return {**example, "image": enlarged_to_full(processor, example["image"])}


def _example(picture: np.ndarray) -> Example:
    """A full picture and its coarse one."""
    return {"image": coarse(picture), "sharp": picture}


def _picture(split: str, index: int) -> np.ndarray:
    """A photograph for an even index, a scene for an odd one."""
    if index % 2:
        return render_scene(scene_of(split, "super_resolution", index // 2))
    return photograph(split, index // 2)[0]


def _shown(picture: np.ndarray) -> DemoExample:
    """A picture for the demonstration."""
    example = _example(picture)
    height, width = picture.shape[:2]
    shrunk = Image.fromarray(example["image"]).resize((width, height), Image.Resampling.NEAREST)
    return DemoExample(
        example,
        f"{height // FACTOR} x {width // FACTOR} pixels",
        said=lambda result: f"{psnr_db(as_pixels(result), picture):.1f} dB",
        pictures=lambda result: [np.asarray(shrunk), as_pixels(result), picture],
        labels=("given", "sharpened", "original"),
        section="Super-resolution",
    )
