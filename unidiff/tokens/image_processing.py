"""Image processor: any picture becomes pixels in [-1, 1] for the image tokenizer, and back.

A picture that fits is padded, never enlarged, so a 28 x 28 image keeps its pixels; a larger one is
shrunk with its aspect ratio kept and then padded. Needs Pillow only, no torchvision.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

from .image import FSQImageTokenizerConfig

_CHANNEL_COUNTS = (1, 3, 4)  # grey, RGB, RGBA
_UNMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}  # modes whose colours are multiplied by alpha


class UniDiffImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Arguments of `UniDiffImageProcessor` beyond those of every image processor."""

    pad_to_size: bool  # pad a picture that fits instead of enlarging it
    crop_to_size: bool  # fill `size` with the picture's middle instead of fitting all of it
    pad_value: int  # grey level 0..255 of the border and of transparent pixels


class UniDiffImageProcessor(PilBackend):
    """Turns PIL, numpy or torch images of any mode and size into (B, 3, H, W) in [-1, 1].

    Args:
        size: {"height", "width"} in pixels of the result; 32 x 32 by default.
        do_resize: False demands pictures that fit into `size`.
        pad_to_size: True pads a smaller picture; False enlarges it until one side fits.
        crop_to_size: True scales every picture until it covers `size` and cuts off what sticks out,
            as others prepare theirs; `do_resize`, `pad_to_size` and `pad_value` mean nothing then.
        pad_value: grey level 0..255 of the border and behind transparent pixels.
    """

    valid_kwargs = UniDiffImageProcessorKwargs
    model_input_names = ["pixel_values"]
    resample = PILImageResampling.BILINEAR
    size = {"height": 32, "width": 32}
    do_convert_rgb = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)
    pad_to_size = True
    crop_to_size = False
    pad_value = 0

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> Any:
        """A flat list of images; (H, W) arrays, unknown to the base class, get a channel axis."""
        if isinstance(images, list | tuple):
            images = [_with_channel_axis(image) for image in images]
        return super()._prepare_images_structure(_with_channel_axis(images), expected_ndims)

    def process_image(
        self,
        image: Image.Image | NDArray[np.generic] | Tensor,
        pad_value: int = 0,
        **kwargs: object,
    ) -> NDArray[np.uint8]:
        """(3, H, W) uint8 pixels of one picture; transparent pixels show the pad value.

        Args:
            image: PIL image of any mode; or (H, W), (H, W, C) or (C, H, W) array or tensor, C in
                {1, 3, 4}, integers in 0..255 or floats in [0, 1].
            pad_value: grey level 0..255 behind transparent pixels.
            **kwargs: settings of the later stages, not read here.

        Raises:
            TypeError: if it is not an image.
            ValueError: if the shape or the values cannot be an image.
        """
        if isinstance(image, Tensor):
            image = image.detach().cpu().numpy()
        if isinstance(image, np.ndarray):
            image = Image.fromarray(_array_to_bytes(image))
        if not isinstance(image, Image.Image):
            raise TypeError(f"expected a PIL image, numpy array or tensor; got {type(image)}")
        if min(image.size) < 1:
            raise ValueError(f"an image needs at least one pixel; got {image.size}")
        return np.moveaxis(np.array(_to_rgb(image, pad_value)), -1, 0)

    def _preprocess(
        self,
        images: list[NDArray[np.uint8]],
        size: SizeDict,
        do_resize: bool = True,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        pad_to_size: bool = True,
        crop_to_size: bool = False,
        pad_value: int = 0,
        return_tensors: str | None = None,
        **kwargs: object,
    ) -> BatchFeature:
        """Fit every (3, H, W) picture into `size`, scale it to [-1, 1] and stack the batch."""
        if not (size.height and size.width):
            raise ValueError(f"size must be {{'height': ..., 'width': ...}}; got {size}")
        if not 0 <= pad_value <= 255:
            raise ValueError(f"pad_value must be in 0..255; got {pad_value=}")
        target = (size.height, size.width)
        pixels = []
        for image in images:
            if crop_to_size:
                fitted = self._cover(image, target, kwargs.get("resample"))
            else:
                fitted = self._fit(image, target, do_resize, pad_to_size, kwargs.get("resample"))
            value = _pad_to_center(fitted, target, pad_value).astype(np.float32)
            if do_rescale:
                value = value * rescale_factor
            if do_normalize:
                value = self.normalize(value, kwargs["image_mean"], kwargs["image_std"])
            pixels.append(value.astype(np.float32))
        return BatchFeature(data={"pixel_values": pixels}, tensor_type=return_tensors)

    def _fit(
        self,
        image: NDArray[np.uint8],
        target: tuple[int, int],
        do_resize: bool,
        pad_to_size: bool,
        resample: PILImageResampling | None,
    ) -> NDArray[np.uint8]:
        """The (3, H, W) picture at most as large as `target`, its aspect ratio kept."""
        height, width = image.shape[1:]
        fits = height <= target[0] and width <= target[1]
        if fits and (pad_to_size or not do_resize):
            return image
        if not do_resize:
            raise ValueError(
                f"with do_resize=False an image must fit into {target}; got {(height, width)}. "
                "Set do_resize=True or a larger size"
            )
        scale = min(target[0] / height, target[1] / width)
        new_height = min(target[0], max(1, round(height * scale)))
        new_width = min(target[1], max(1, round(width * scale)))
        new_size = SizeDict(height=new_height, width=new_width)
        shrunk: NDArray[np.uint8] = self.resize(image, size=new_size, resample=resample)
        return shrunk

    def _cover(
        self,
        image: NDArray[np.uint8],
        target: tuple[int, int],
        resample: PILImageResampling | None,
    ) -> NDArray[np.uint8]:
        """The middle of the (3, H, W) picture, (3, *target), scaled until it covers that.

        Source: the rounding is that of torchvision's Resize and CenterCrop, through which others
            feed their tokenizers; checked in tests/tokens/test_image_processing.py.
        """
        height, width = image.shape[1:]
        if target[0] * width >= target[1] * height:  # the picture is wider
            size = (target[0], max(target[1], target[0] * width // height))
        else:
            size = (max(target[0], target[1] * height // width), target[1])
        scaled = self.resize(image, size=SizeDict(height=size[0], width=size[1]), resample=resample)
        top, left = (round((size[axis] - target[axis]) / 2) for axis in (0, 1))
        middle: NDArray[np.uint8] = scaled[:, top : top + target[0], left : left + target[1]]
        return middle

    def postprocess(self, pixels: Tensor | NDArray[np.floating]) -> list[Image.Image]:
        """RGB pictures of pixels in [-1, 1]; values outside are clamped.

        Args:
            pixels: (B, 3, H, W) or (3, H, W) float in [-1, 1].

        Returns:
            B PIL images of mode RGB and size (W, H).

        Raises:
            ValueError: if the shape is different or a value is not finite.
        """
        batch = torch.as_tensor(pixels).detach().cpu().float()
        if batch.ndim == 3:
            batch = batch.unsqueeze(0)
        if batch.ndim != 4 or batch.shape[1] != 3:
            raise ValueError(f"pixels must have shape (B, 3, H, W); got {tuple(batch.shape)}")
        if not torch.isfinite(batch).all():
            raise ValueError("pixels must be finite; got NaN or infinity")
        scaled = ((batch.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return [Image.fromarray(image) for image in scaled.permute(0, 2, 3, 1).numpy()]


def _with_channel_axis(image: Any) -> Any:
    """(1, H, W) of an (H, W) array or tensor; anything else unchanged."""
    is_grey = isinstance(image, np.ndarray | Tensor) and image.ndim == 2
    return image[None] if is_grey else image


def _array_to_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) or (H, W, C) uint8 of an array with channels first, last or absent."""
    if array.dtype.kind not in "buif":
        raise TypeError(f"an image array must hold integers or floats; got dtype {array.dtype}")
    if array.ndim == 3 and array.shape[2] not in _CHANNEL_COUNTS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNEL_COUNTS):
        raise ValueError(
            f"an image array must be (H, W), (H, W, C) or (C, H, W) with C in {_CHANNEL_COUNTS}; "
            f"got {array.shape}"
        )
    if array.size == 0:
        raise ValueError(f"an image needs at least one pixel; got shape {array.shape}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    is_float = np.issubdtype(array.dtype, np.floating)
    highest = 1 if is_float or array.dtype == np.bool_ else 255
    if not (np.all(array >= 0) and np.all(array <= highest)):
        raise ValueError(
            "integer images must be in 0..255 and float images finite in [0, 1]; got "
            f"{array.dtype} in [{array.min()}, {array.max()}]"
        )
    return np.round(array.astype(np.float64) * (255 / highest)).astype(np.uint8)


def _to_rgb(image: Image.Image, pad_value: int) -> Image.Image:
    """The picture in mode RGB; transparency shows the grey level `pad_value`."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        image = Image.fromarray(np.clip(np.array(image), 0, 255).astype(np.uint8))
    if image.mode in _UNMULTIPLIED:
        image = image.convert(_UNMULTIPLIED[image.mode])
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    opaque = image.convert("RGBA")
    background = Image.new("RGBA", opaque.size, (pad_value, pad_value, pad_value, 255))
    return Image.alpha_composite(background, opaque).convert("RGB")


def _pad_to_center(
    image: NDArray[np.uint8], target: tuple[int, int], pad_value: int
) -> NDArray[np.uint8]:
    """The (3, H, W) picture in the middle of a (3, *target) border of `pad_value`."""
    rows, columns = target[0] - image.shape[1], target[1] - image.shape[2]
    border = ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    return np.pad(image, border, constant_values=pad_value)


AutoImageProcessor.register(
    FSQImageTokenizerConfig, image_processor_classes={"pil": UniDiffImageProcessor}
)
