"""Pictures as soft prompt positions: pixels for a tower, and how many positions they take.

Pixels are made by transformers' own image processors on Pillow. Knows pictures and the text around
them; knows nothing of towers or features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers.image_utils import PILImageResampling

from .patches import Patches
from .tiles import Tiles, best_canvas, fitted

_HALF = (0.5, 0.5, 0.5)
_MOST_NARROW = 200  # times the other side; transformers' processor of patches takes no more


@dataclass(frozen=True)
class SoftPicture:
    """A picture ready for a tower.

    Attributes:
        pixel_values: (n, ...) float32, its tiles (3, side, side) or its flattened patches.
        shape: (height, width) in pixels, or (times, rows, columns) in patches.
        num_positions: features that the tower will give.
    """

    pixel_values: Tensor
    shape: tuple[int, ...]
    num_positions: int


class SoftPrompts(Protocol):
    """How a checkpoint reads pictures.

    Attributes:
        shape_name: keyword of `generate()` that the pictures' shapes are passed as.
    """

    shape_name: ClassVar[str]

    @property
    def opening(self) -> str:
        """Template text before a picture's positions."""
        ...

    @property
    def closing(self) -> str:
        """Template text behind them."""
        ...

    def __call__(self, picture: Image.Image) -> SoftPicture:
        """A picture ready for the tower."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for `processor_config.json`."""
        ...


@dataclass(frozen=True)
class TiledPictures:
    """A picture squeezed into one tile, then its tiles on the canvas that suits it best.

    Attributes:
        tiles: the geometry.
        opening: template text before a picture's positions.
        closing: template text behind them.
        mean: of each channel, of values in [0, 1].
        std: of each channel.
    """

    tiles: Tiles
    opening: str = ""
    closing: str = ""
    mean: Sequence[float] = _HALF
    std: Sequence[float] = _HALF
    shape_name: ClassVar[str] = "image_sizes"

    def __call__(self, picture: Image.Image) -> SoftPicture:
        """A picture ready for the tower."""
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        side, size = self.tiles.side, (picture.height, picture.width)
        canvas = best_canvas(size, self.tiles.canvases)
        inside = fitted(size, canvas)
        sheet = Image.new("RGB", canvas)
        corner = (canvas[0] - inside[0]) // 2, (canvas[1] - inside[1]) // 2
        sheet.paste(picture.resize(inside, Image.Resampling.BICUBIC), corner)
        parts = [picture.resize((side, side), Image.Resampling.BICUBIC)]
        for top in range(0, canvas[1], side):
            for left in range(0, canvas[0], side):
                parts.append(sheet.crop((left, top, left + side, top + side)))
        pixels = SiglipImageProcessorPil(
            size={"height": side, "width": side},
            resample=PILImageResampling.BICUBIC,
            image_mean=list(self.mean),
            image_std=list(self.std),
        )(parts, return_tensors="pt")["pixel_values"]
        return SoftPicture(torch.as_tensor(pixels), size, self.tiles.num_positions(size))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {**asdict(self), "kind": "tiles", "tiles": self.tiles.to_dict()}


@dataclass(frozen=True)
class PatchedPictures:
    """A picture of about its own size, cut into patches.

    Attributes:
        patches: the geometry.
        min_pixels: a smaller picture is enlarged to.
        max_pixels: a larger one is reduced to.
        enlarges: whether one with a side shorter than a feature is scaled as Dream-VL scales it, by
            `Patches.enlarged`.
        opening: template text before a picture's positions.
        closing: template text behind them.
        mean: of each channel, of values in [0, 1].
        std: of each channel.
    """

    patches: Patches
    min_pixels: int
    max_pixels: int
    enlarges: bool = False
    opening: str = ""
    closing: str = ""
    mean: Sequence[float] = _HALF
    std: Sequence[float] = _HALF
    shape_name: ClassVar[str] = "image_grid_thw"

    def __call__(self, picture: Image.Image) -> SoftPicture:
        """A picture ready for the tower; raises ValueError if it is too narrow for patches."""
        from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl

        is_small = self.enlarges and min(picture.size) < self.patches.square
        most = self.max_pixels // self.patches.square**2 if is_small else _MOST_NARROW
        if max(picture.size) > most * min(picture.size):
            raise ValueError(
                f"a picture of {picture.width} x {picture.height} pixels is too narrow for this "
                f"checkpoint: its longer side must be at most {most} times the other; cut it"
            )
        if is_small:
            down, across = self.patches.enlarged((picture.height, picture.width), self.min_pixels)
            picture = picture.resize((across, down), Image.Resampling.BICUBIC)
        found = image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil(
            do_resize=not is_small,
            size={"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            patch_size=self.patches.side,
            temporal_patch_size=self.patches.frames,
            merge_size=self.patches.merge,
            image_mean=list(self.mean),
            image_std=list(self.std),
        )([picture], return_tensors="pt")
        shape = tuple(found["image_grid_thw"][0].tolist())
        return SoftPicture(found["pixel_values"], shape, self.patches.num_positions(shape))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {**asdict(self), "kind": "patches", "patches": self.patches.to_dict()}


def soft_prompts(values: Mapping[str, Any]) -> TiledPictures | PatchedPictures:
    """What `to_dict` wrote; raises ValueError if its kind is unknown."""
    colours = {name: tuple(values[name]) for name in ("mean", "std") if name in values}
    fields = {**values, **colours}
    kind = fields.pop("kind", None)
    if kind == "tiles":
        return TiledPictures(**{**fields, "tiles": Tiles.from_dict(fields["tiles"])})
    if kind == "patches":
        return PatchedPictures(**{**fields, "patches": Patches(**fields["patches"])})
    raise ValueError(f"soft_prompts must be of the kind 'tiles' or 'patches', got {kind!r}")


def picture_inputs(pictures: Sequence[SoftPicture], shape_name: str) -> dict[str, Tensor]:
    """Arguments of `generate()` for the pictures of a batch in order; empty without pictures."""
    if not pictures:
        return {}
    return {
        "pixel_values": torch.cat([one.pixel_values for one in pictures]),
        shape_name: torch.tensor([one.shape for one in pictures], dtype=torch.int64),
    }
