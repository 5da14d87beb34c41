"""Our own image tokenizer: an image becomes a grid of integer codes and back.

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
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers import initialization as init
from transformers.utils import ModelOutput

from .image_tokenizer import ImageTokenizer

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


class FSQImageTokenizer(ImageTokenizer):
    """The image tokenizer that we train."""

    config: FSQImageTokenizerConfig
    config_class = FSQImageTokenizerConfig

    def __init__(self, config: FSQImageTokenizerConfig) -> None:
        super().__init__(config)
        self.encoder = _build_encoder(config)
        self.quantizer = FiniteScalarQuantizer(list(config.levels))
        self.decoder = _build_decoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Standard convolution weights; each residual block starts as the identity."""
        super()._init_weights(module)
        if isinstance(module, ResidualBlock):
            init.zeros_(module.conv_out.weight)

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        return f"FSQ {list(self.config.levels)}"

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
        self._check_pixels(pixels)
        values = self._quantized_values(pixels)
        reconstruction = self.decoder(values.to(self.dtype)).float()
        codes = self.quantizer.to_codes(values.detach())
        return FSQImageTokenizerOutput(reconstruction=reconstruction, codes=codes)

    def _codes(self, pixels: Tensor) -> Tensor:
        return self.quantizer.to_codes(self._quantized_values(pixels))

    def _pixels(self, codes: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(self.quantizer.to_values(codes).to(self.dtype))
        return pixels

    def _quantized_values(self, pixels: Tensor) -> Tensor:
        latent = self.encoder(pixels.to(self.dtype))
        return self.quantizer.quantize(latent.float())


AutoConfig.register(FSQImageTokenizerConfig.model_type, FSQImageTokenizerConfig)
AutoModel.register(FSQImageTokenizerConfig, FSQImageTokenizer)
