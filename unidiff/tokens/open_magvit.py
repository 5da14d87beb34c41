"""Open-MAGVIT2's image tokenizer: codes are signs, and the decoder's norms follow the picture.

A code is the number whose binary digits, the lowest first, say which dimensions of the latent are
above zero (MAGVIT-v2 of `vq.py` has the highest first), and stands for the values 1 and -1. Its
authors' transformers of 2^18 codes predict the 6 lowest digits and the 12 others apart; their
files of the tokenizer hold nothing of that.

Source: Open-MAGVIT2 (arXiv 2409.04410) and TencentARC's `improved_model.py`, in own words.

Shapes: B images, C channels, d dimensions of a code, h and w rows and columns at a level's
resolution.
"""

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from .image_tokenizer import ImageTokenizer
from .vq_layers import LevelEncoder, VQResidualBlock, codes_of_signs, signs_of_codes

_EPSILON = 1e-6  # of every norm, and of the variance that scales one


@strict
class OpenMagvitImageTokenizerConfig(PreTrainedConfig):
    """Sizes of an `OpenMagvitImageTokenizer`; the defaults are those of 2^18 codes."""

    model_type = "unidiff_open_magvit"

    level_sizes: list[int] | tuple[int, ...] = (128, 128, 256, 256, 512)  # channels, finest first
    num_blocks: int = 4  # residual blocks of a level, and at code resolution
    code_size: int = 18  # dimensions of a code
    num_groups: int = 32  # of channels, normalised together
    image_size: int = 256  # pixels per side

    def __post_init__(self, **kwargs: object) -> None:
        """Store the sizes as a list, as JSON would return them."""
        self.level_sizes = list(self.level_sizes)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check the fields.

        Raises:
            ValueError: if there is no level, no block or no dimension, or a width cannot be divided
                into groups. The constructor reports it wrapped in huggingface_hub's
                StrictDataclassClassValidationError.
        """
        sizes = self.level_sizes
        if not sizes or any(size < 1 or size % self.num_groups for size in sizes):
            raise ValueError(
                f"level_sizes must be positive multiples of num_groups={self.num_groups}; got "
                f"{sizes}"
            )
        if self.num_blocks < 1 or self.code_size < 1:
            raise ValueError(
                f"num_blocks and code_size must be positive; got {self.num_blocks} and "
                f"{self.code_size}"
            )

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        return 1 << self.code_size

    @property
    def downsample_factor(self) -> int:
        """Pixels per code along each side."""
        return 1 << (len(self.level_sizes) - 1)


class StyledNorm(nn.Module):
    """Groups of channels at mean 0 and variance 1, then scaled and moved as a picture's codes say.

    The scale of a channel is a linear map of the standard deviations of the codes' dimensions over
    all positions, its shift one of their means.
    """

    def __init__(self, num_channels: int, code_size: int, num_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, num_channels, eps=_EPSILON, affine=False)
        self.scale = nn.Linear(code_size, num_channels)
        self.shift = nn.Linear(code_size, num_channels)

    def forward(self, hidden: Tensor, values: Tensor) -> Tensor:
        """(B, C, h, w), the shape it received.

        Args:
            hidden: (B, C, h, w).
            values: (B, d, rows, columns) of the picture's codes; a single one varies by nothing.
        """
        flat = values.flatten(2)
        variance = flat.var(-1, correction=min(1, flat.shape[-1] - 1))
        scale = self.scale((variance + _EPSILON).sqrt())[:, :, None, None]
        shift = self.shift(flat.mean(-1))[:, :, None, None]
        result: Tensor = self.norm(hidden) * scale + shift
        return result


class Spread(nn.Module):
    """A convolution to four times the channels, which become the four quarters of a position."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, 4 * num_channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, 2 h, 2 w) of (B, C, h, w); the quarter counts before the channel."""
        quarters = self.conv(hidden).unflatten(1, (4, -1)).transpose(1, 2)
        return F.pixel_shuffle(quarters.flatten(1, 2), 2)


class OpenMagvitEncoder(LevelEncoder):
    """From (B, 3, H, W) pixels in [-1, 1] to (B, d, h, w) latents."""

    def __init__(self, config: OpenMagvitImageTokenizerConfig) -> None:
        super().__init__()
        sizes = list(config.level_sizes)
        widths = [sizes[0], *sizes]
        self.conv_in = nn.Conv2d(3, sizes[0], 3, padding=1, bias=False)
        self.levels = nn.ModuleList(
            _blocks(widths[n], size, config) for n, size in enumerate(sizes)
        )
        self.halvings = nn.ModuleList(
            nn.Conv2d(size, size, 3, stride=2, padding=1) for size in sizes[:-1]
        )
        self.middle = _blocks(sizes[-1], sizes[-1], config)
        self.norm_out = nn.GroupNorm(config.num_groups, sizes[-1], eps=_EPSILON)
        self.conv_out = nn.Conv2d(sizes[-1], config.code_size, 1)


class OpenMagvitDecoder(nn.Module):
    """From codes to pixels: the middle, then levels, the coarsest first, each behind its norm."""

    def __init__(self, config: OpenMagvitImageTokenizerConfig) -> None:
        super().__init__()
        sizes = list(config.level_sizes)[::-1]
        widths = [sizes[0], *sizes]
        self.conv_in = nn.Conv2d(config.code_size, sizes[0], 3, padding=1)
        self.middle = _blocks(sizes[0], sizes[0], config)
        self.norms = nn.ModuleList(
            StyledNorm(width, config.code_size, config.num_groups) for width in widths[:-1]
        )
        self.levels = nn.ModuleList(
            _blocks(widths[n], size, config) for n, size in enumerate(sizes)
        )
        self.doublings = nn.ModuleList(Spread(size) for size in sizes[:-1])
        self.norm_out = nn.GroupNorm(config.num_groups, sizes[-1], eps=_EPSILON)
        self.conv_out = nn.Conv2d(sizes[-1], 3, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        """(B, 3, H, W) pixels, nominally in [-1, 1], of (B, d, h, w)."""
        hidden = self.middle(self.conv_in(values))
        doublings = [*self.doublings, nn.Identity()]
        for norm, level, doubling in zip(self.norms, self.levels, doublings, strict=True):
            hidden = doubling(level(norm(hidden, values)))
        pixels: Tensor = self.conv_out(F.silu(self.norm_out(hidden)))
        return pixels


class OpenMagvitImageTokenizer(ImageTokenizer):
    """A published image tokenizer of Open-MAGVIT2."""

    config: OpenMagvitImageTokenizerConfig
    config_class = OpenMagvitImageTokenizerConfig

    def __init__(self, config: OpenMagvitImageTokenizerConfig) -> None:
        super().__init__(config)
        self.encoder = OpenMagvitEncoder(config)
        self.decoder = OpenMagvitDecoder(config)
        self.post_init()

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        return "Open-MAGVIT2, codes by signs"

    def _codes(self, pixels: Tensor) -> Tensor:
        return codes_of_signs(self.encoder(pixels.to(self.dtype)), self._digits)

    def _pixels(self, codes: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(signs_of_codes(codes, self._digits).to(self.dtype))
        return pixels

    @property
    def _digits(self) -> Tensor:
        """(d,) the place of each dimension's binary digit, the lowest first."""
        return torch.arange(self.config.code_size, device=self.device)


def _blocks(num_in: int, num_out: int, config: OpenMagvitImageTokenizerConfig) -> nn.Sequential:
    """The residual blocks of one resolution, none of whose convolutions has a bias."""
    widths = [num_in] + [num_out] * config.num_blocks
    return nn.Sequential(
        *(
            VQResidualBlock(widths[n], widths[n + 1], config.num_groups, has_bias=False)
            for n in range(config.num_blocks)
        )
    )


AutoConfig.register(OpenMagvitImageTokenizerConfig.model_type, OpenMagvitImageTokenizerConfig)
AutoModel.register(OpenMagvitImageTokenizerConfig, OpenMagvitImageTokenizer)
