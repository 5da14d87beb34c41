"""Layers of the VQGAN family: both halves of an autoencoder with a code book between them.

Every published tokenizer of the family has these layers and differs in how many there are, where
attention stands, and how a code is looked up (`vq.py`).

Shapes: B images, C channels, h and w rows and columns at a level's resolution.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-6  # of every norm, as taming-transformers has it (arXiv 2012.09841)


class VQResidualBlock(nn.Module):
    """Two normalised 3 x 3 convolutions added to their input, which a 1 x 1 one fits if need be."""

    def __init__(
        self, num_in: int, num_out: int, num_groups: int, *, has_bias: bool = True
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, num_in, eps=_EPSILON)
        self.conv1 = nn.Conv2d(num_in, num_out, 3, padding=1, bias=has_bias)
        self.norm2 = nn.GroupNorm(num_groups, num_out, eps=_EPSILON)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=has_bias)
        self.shortcut: nn.Module = nn.Identity()
        if num_in != num_out:
            self.shortcut = nn.Conv2d(num_in, num_out, 1, bias=has_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, num_out, h, w) of (B, num_in, h, w)."""
        update = self.conv1(F.silu(self.norm1(hidden)))
        update = self.conv2(F.silu(self.norm2(update)))
        result: Tensor = self.shortcut(hidden) + update
        return result


class VQAttention(nn.Module):
    """Attention of every position to every other, one head, added to its input."""

    def __init__(self, num_channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, num_channels, eps=_EPSILON)
        self.q = nn.Conv2d(num_channels, num_channels, 1)
        self.k = nn.Conv2d(num_channels, num_channels, 1)
        self.v = nn.Conv2d(num_channels, num_channels, 1)
        self.out = nn.Conv2d(num_channels, num_channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, h, w), the shape it received."""
        normed = self.norm(hidden)
        q, k, v = (
            layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)  # scaled by C ** -0.5
        result: Tensor = hidden + self.out(mixed[:, 0].transpose(1, 2).reshape(hidden.shape))
        return result


class VQLevel(nn.Module):
    """Residual blocks of one resolution, each with attention behind it or none with."""

    def __init__(
        self, num_in: int, num_out: int, num_blocks: int, attends: bool, num_groups: int
    ) -> None:
        super().__init__()
        widths = [num_in] + [num_out] * num_blocks
        self.blocks = nn.ModuleList(
            VQResidualBlock(widths[n], widths[n + 1], num_groups) for n in range(num_blocks)
        )
        self.attentions = nn.ModuleList(
            VQAttention(num_out, num_groups) for _ in range(num_blocks if attends else 0)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, num_out, h, w) of (B, num_in, h, w)."""
        for number, block in enumerate(self.blocks):
            hidden = block(hidden)
            if len(self.attentions):
                hidden = self.attentions[number](hidden)
        return hidden


class VQMiddle(nn.Module):
    """Two residual blocks at code resolution, with attention between them or without."""

    def __init__(self, num_channels: int, attends: bool, num_groups: int) -> None:
        super().__init__()
        self.block_in = VQResidualBlock(num_channels, num_channels, num_groups)
        self.attention = VQAttention(num_channels, num_groups) if attends else nn.Identity()
        self.block_out = VQResidualBlock(num_channels, num_channels, num_groups)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, h, w), the shape it received."""
        result: Tensor = self.block_out(self.attention(self.block_in(hidden)))
        return result


class Halving(nn.Module):
    """A convolution of stride 2 over an image padded on the right and below."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_channels, 3, stride=2)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, h / 2, w / 2) of (B, C, h, w)."""
        result: Tensor = self.conv(F.pad(hidden, (0, 1, 0, 1)))
        return result


class Doubling(nn.Module):
    """Every position repeated twice along each side, then a convolution."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, 2 h, 2 w) of (B, C, h, w)."""
        result: Tensor = self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return result


class LevelEncoder(nn.Module):
    """From pixels to latents: levels, each but the last followed by a halving, then the middle."""

    conv_in: Any
    levels: Any
    halvings: Any
    middle: Any
    norm_out: Any
    conv_out: Any

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, latent channels, h, w) of (B, 3, H, W) pixels in the network's own range."""
        hidden = self.conv_in(pixels)
        for level, halving in zip(self.levels, [*self.halvings, nn.Identity()], strict=True):
            hidden = halving(level(hidden))
        latent: Tensor = self.conv_out(F.silu(self.norm_out(self.middle(hidden))))
        return latent


def codes_of_signs(latent: Tensor, digits_d: Tensor) -> Tensor:
    """(B, h, w) int64 codes of a (B, d, h, w) latent, by what of it is above 0.

    Args:
        latent: (B, d, h, w).
        digits_d: (d,) int64, the place of each dimension's binary digit.
    """
    codes: Tensor = ((latent > 0) * (1 << digits_d)[:, None, None]).sum(1)
    return codes


def signs_of_codes(codes: Tensor, digits_d: Tensor) -> Tensor:
    """(B, d, h, w) int64, 1 and -1, of (B, h, w) codes; see `codes_of_signs`."""
    return ((codes[:, None] >> digits_d[:, None, None]) & 1) * 2 - 1
