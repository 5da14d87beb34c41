"""What every image tokenizer does: pixels in [-1, 1] become a grid of integer codes, and back.

`image.py` is our own; `vq.py`, `open_magvit.py` and `emu3.py` hold those of others. Whatever range
of pixels a network itself was trained on, here it takes and gives [-1, 1].

Shapes: B images, H height and W width in pixels, h and w code rows and columns.
"""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init


class ImageTokenizer(PreTrainedModel):
    """Turns images in [-1, 1] into integer codes and codes into images.

    A subclass has `kind`, `_codes` and `_pixels`; its configuration has `codebook_size`,
    `downsample_factor` and `image_size`.
    """

    main_input_name = "pixels"
    base_model_prefix = "image_tokenizer"

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        size: int = self.config.codebook_size
        return size

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Codes of a batch of images.

        Args:
            pixels: (B, 3, H, W) float in [-1, 1]. H and W are multiples of the downsample factor.

        Returns:
            (B, h, w) int64 in [0, codebook_size).

        Raises:
            ValueError: if the rank, the number of channels or the size is wrong.
            TypeError: if the pixels are integers.
        """
        self._check_pixels(pixels)
        return self._codes(pixels)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Images of a grid of codes; always finite.

        Args:
            codes: (B, h, w) integers. Values outside the codebook are clamped to its ends.

        Returns:
            (B, 3, H, W) float32 in [-1, 1].

        Raises:
            ValueError: if the rank is not 3.
            TypeError: if the codes are not integers.
        """
        _check_codes(codes, rank=3, shape="(B, h, w)")
        in_range = codes.to(torch.int64).clamp(0, self.codebook_size - 1)
        return self._pixels(in_range).float().clamp(-1, 1)

    def get_image_tokens(self, pixels: Tensor) -> Tensor:
        """(B, h * w) int64 codes in raster order of (B, 3, H, W) pixels; errors as in `encode`."""
        return self.encode(pixels).flatten(1)

    def decode_image_tokens(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Images, (B, 3, H, W) in [-1, 1], of codes in raster order.

        Args:
            codes: (B, h * w) integers, clamped as in `decode`.
            grid: (h, w); None means a square.

        Raises:
            ValueError: if the rank is not 2, or the number of codes does not fit the grid.
            TypeError: if the codes are not integers.
        """
        _check_codes(codes, rank=2, shape="(B, h * w)")
        num_codes = codes.shape[1]
        height, width = grid if grid is not None else (math.isqrt(num_codes),) * 2
        if height < 1 or width < 1 or height * width != num_codes:
            wanted = f"grid {grid} has {height * width}" if grid else "no square has that many"
            raise ValueError(f"got {num_codes} codes per image but {wanted}; pass grid=(h, w)")
        return self.decode(codes.reshape(-1, height, width))

    def _init_weights(self, module: nn.Module) -> None:
        """Standard weights of convolutions and norms that nobody has trained yet."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm) and module.affine:
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def _codes(self, pixels: Tensor) -> Tensor:
        """(B, h, w) int64 codes of pixels that were checked."""
        raise NotImplementedError

    def _pixels(self, codes: Tensor) -> Tensor:
        """(B, 3, H, W) pixels, nominally in [-1, 1], of codes in the codebook."""
        raise NotImplementedError

    def _check_pixels(self, pixels: Tensor) -> None:
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(
                f"pixels must have shape (B, 3, H, W); got {tuple(pixels.shape)}. Convert images "
                "with UniDiffImageProcessor, or repeat a grey channel three times"
            )
        if not pixels.is_floating_point():
            raise TypeError(
                f"pixels must be floats in [-1, 1]; got {pixels.dtype}. Use UniDiffImageProcessor"
            )
        factor = self.config.downsample_factor
        height, width = pixels.shape[2:]
        if height < factor or width < factor or height % factor or width % factor:
            raise ValueError(
                f"height and width must be positive multiples of {factor}; got {height} x {width}. "
                "Pad the image with UniDiffImageProcessor"
            )


def _check_codes(codes: Tensor, rank: int, shape: str) -> None:
    if codes.ndim != rank:
        raise ValueError(f"codes must have shape {shape}; got {tuple(codes.shape)}")
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise TypeError(f"codes must be integers; got {codes.dtype}")
