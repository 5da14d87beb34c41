"""Image tokenizer: an image becomes a grid of integer codes and back.

A small convolutional autoencoder with finite scalar quantization (FSQ) between its halves. One
code stands for one patch of `downsample_factor` pixels per side; residual blocks at code resolution
let neighbouring codes share information. Knows nothing of text, actions or the joint vocabulary.

Shapes: B images, C = 3 channels, H height and W width in pixels, h and w code rows and columns,
d quantized dimensions.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

_GROUPS = 8  # channels of every width are normalised in 8 groups (research notes, section 9)
_FSQ_MARGIN = 1e-3  # keeps atanh finite at the outermost level (FSQ, arXiv 2309.15505)


@strict
class FSQImageTokenizerConfig(PreTrainedConfig):
    """Sizes of an `FSQImageTokenizer`; the defaults give 64 of 240 codes for a 32 x 32 image."""

    model_type = "unidiff_fsq"

    levels: list[int] | tuple[int, ...] = (8, 6, 5)  # values per quantized dimension
    hidden_sizes: list[int] | tuple[int, ...] = (32, 96)  # channels after each halving of the image
    num_encoder_blocks: int = 1  # residual blocks at code resolution
    num_decoder_blocks: int = 3  # residual blocks at code resolution
    num_stage_blocks: int = 1  # residual blocks at every finer resolution, in each half
    image_size: int = 32  # pixels per side that the weights were trained for

    def __post_init__(self, **kwargs: object) -> None:
        """Store the sequences as lists, as JSON would return them."""
        self.levels = list(self.levels)
        self.hidden_sizes = list(self.hidden_sizes)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check the fields against each other.

        Raises:
            ValueError: if a level is below 2, a width is not a multiple of 8, or the image size is
                not a multiple of the downsample factor. The constructor reports it wrapped in
                huggingface_hub's StrictDataclassClassValidationError.
        """
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"levels must be one or more integers >= 2; got {self.levels}")
        if not self.hidden_sizes or any(size < 1 or size % _GROUPS for size in self.hidden_sizes):
            raise ValueError(
                f"hidden_sizes must be positive multiples of {_GROUPS}; got {self.hidden_sizes}"
            )
        if self.image_size < 1 or self.image_size % self.downsample_factor:
            raise ValueError(
                f"image_size must be a positive multiple of {self.downsample_factor} "
                f"(2 ** len(hidden_sizes)); got {self.image_size}"
            )

    @property
    def downsample_factor(self) -> int:
        """Pixels per code along each side."""
        return 1 << len(self.hidden_sizes)

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        return math.prod(self.levels)


@dataclass
class FSQImageTokenizerOutput(ModelOutput):
    """What `FSQImageTokenizer.forward` returns.

    Attributes:
        reconstruction: (B, 3, H, W) float. Nominally in [-1, 1], not clamped, differentiable.
        codes: (B, h, w) int64 in [0, codebook_size).
    """

    reconstruction: Tensor | None = None
    codes: Tensor | None = None


class FiniteScalarQuantizer(nn.Module):
    """Rounds each of d bounded dimensions to a few levels; one integer names the combination.

    Source: FSQ, arXiv 2309.15505; the formulas of research notes vla_and_tokenizers.md, section 7.
        Checked by the round trip over all codes in tests/tokens/test_image.py.
    """

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        self.levels = list(levels)
        self.basis = [math.prod(levels[:dim]) for dim in range(len(levels))]

    def quantize(self, latent: Tensor) -> Tensor:
        """Rounded values in [-1, 1] of a (B, d, h, w) latent; gradients skip the rounding."""
        levels = latent.new_tensor(self.levels).view(1, -1, 1, 1)
        half_range = (levels - 1) * (1 + _FSQ_MARGIN) / 2
        offset = (levels % 2 == 0).to(latent.dtype) / 2
        shift = torch.atanh(offset / half_range)
        bounded = torch.tanh(latent + shift) * half_range - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / torch.div(levels, 2, rounding_mode="floor")

    def to_codes(self, values: Tensor) -> Tensor:
        """(B, h, w) int64 codes of (B, d, h, w) quantized values."""
        codes = torch.zeros_like(values[:, 0], dtype=torch.int64)
        for dim, (num_levels, weight) in enumerate(zip(self.levels, self.basis, strict=True)):
            half = num_levels // 2
            codes = codes + ((values[:, dim] * half).round().to(torch.int64) + half) * weight
        return codes

    def to_values(self, codes: Tensor) -> Tensor:
        """(B, d, h, w) float32 quantized values of (B, h, w) codes, which must be in range."""
        digits = [
            torch.div(codes, weight, rounding_mode="floor") % num_levels
            for num_levels, weight in zip(self.levels, self.basis, strict=True)
        ]
        halves = [num_levels // 2 for num_levels in self.levels]
        values = [(digit - half).float() / half for digit, half in zip(digits, halves, strict=True)]
        return torch.stack(values, dim=1)


class ResidualBlock(nn.Module):
    """Two normalised 3 x 3 convolutions added to their input."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_GROUPS, num_channels)
        self.conv_in = nn.Conv2d(num_channels, num_channels, 3, padding=1)
        self.norm_out = nn.GroupNorm(_GROUPS, num_channels)
        self.conv_out = nn.Conv2d(num_channels, num_channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, channels, h, w), the shape it received."""
        update = self.conv_in(F.silu(self.norm_in(hidden)))
        result: Tensor = hidden + self.conv_out(F.silu(self.norm_out(update)))
        return result


def _build_encoder(config: FSQImageTokenizerConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    num_channels = 3
    for stage, size in enumerate(config.hidden_sizes, start=1):
        layers.append(nn.Conv2d(num_channels, size, 4, stride=2, padding=1))
        is_last = stage == len(config.hidden_sizes)
        count = config.num_encoder_blocks if is_last else config.num_stage_blocks
        layers += [ResidualBlock(size) for _ in range(count)]
        num_channels = size
    layers += [nn.GroupNorm(_GROUPS, num_channels), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(num_channels, len(config.levels), 1))


def _build_decoder(config: FSQImageTokenizerConfig) -> nn.Sequential:
    sizes = list(reversed(config.hidden_sizes))
    layers: list[nn.Module] = [nn.Conv2d(len(config.levels), sizes[0], 3, padding=1)]
    layers += [ResidualBlock(sizes[0]) for _ in range(config.num_decoder_blocks)]
    for size, finer in pairwise(sizes):
        layers += [nn.Conv2d(size, finer * 4, 3, padding=1), nn.PixelShuffle(2)]
        layers += [ResidualBlock(finer) for _ in range(config.num_stage_blocks)]
    layers += [nn.GroupNorm(_GROUPS, sizes[-1]), nn.SiLU()]
    layers += [nn.Conv2d(sizes[-1], 3 * 4, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)


class FSQImageTokenizer(PreTrainedModel):
    """Turns images in [-1, 1] into integer codes and codes into images."""

    config: FSQImageTokenizerConfig
    config_class = FSQImageTokenizerConfig
    main_input_name = "pixels"
    base_model_prefix = "image_tokenizer"

    def __init__(self, config: FSQImageTokenizerConfig) -> None:
        super().__init__(config)
        self.encoder = _build_encoder(config)
        self.quantizer = FiniteScalarQuantizer(list(config.levels))
        self.decoder = _build_decoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Standard convolution weights; each residual block starts as the identity."""
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="linear")
            init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ResidualBlock):
            init.zeros_(module.conv_out.weight)

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        return self.config.codebook_size

    def forward(self, pixels: Tensor) -> FSQImageTokenizerOutput:
        """Reconstruction and codes of a batch of images; gradients pass the rounding unchanged.

        Args:
            pixels: (B, 3, H, W) float in [-1, 1]. H and W are multiples of the downsample factor.

        Returns:
            `FSQImageTokenizerOutput` with (B, 3, H, W) reconstruction and (B, h, w) codes.

        Raises:
            ValueError: if the rank, the number of channels or the size is wrong.
            TypeError: if the pixels are integers.
        """
        values = self._quantized_values(pixels)
        reconstruction = self.decoder(values.to(self.dtype)).float()
        codes = self.quantizer.to_codes(values.detach())
        return FSQImageTokenizerOutput(reconstruction=reconstruction, codes=codes)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """(B, h, w) int64 codes of (B, 3, H, W) pixels in [-1, 1]; errors as in `forward`."""
        return self.quantizer.to_codes(self._quantized_values(pixels))

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
        values = self.quantizer.to_values(in_range)
        pixels: Tensor = self.decoder(values.to(self.dtype)).float()
        return pixels.clamp(-1, 1)

    def get_image_tokens(self, pixels: Tensor) -> Tensor:
        """(B, h * w) int64 codes in raster order of (B, 3, H, W) pixels; errors as in `forward`."""
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

    def _quantized_values(self, pixels: Tensor) -> Tensor:
        self._check_pixels(pixels)
        latent = self.encoder(pixels.to(self.dtype))
        return self.quantizer.quantize(latent.float())

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


AutoConfig.register(FSQImageTokenizerConfig.model_type, FSQImageTokenizerConfig)
AutoModel.register(FSQImageTokenizerConfig, FSQImageTokenizer)
