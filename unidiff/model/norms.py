"""Normalisations of the residual stream, and of the heads of queries and keys."""

import torch
from torch import Tensor, nn

from .configuration import UniDiffConfig


class UniDiffRMSNorm(nn.Module):
    """Root-mean-square normalisation, computed in float32 (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        """Scale of ones for the last dimension of `size`."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalised tensor of the same shape and dtype."""
        return nn.functional.rms_norm(
            hidden, self.weight.shape, self.weight.to(hidden.dtype), self.eps
        )


class UniDiffLayerNorm(nn.Module):
    """Normalisation to mean 0 and variance 1, computed in float32 (arXiv 1607.06450)."""

    def __init__(self, size: int, eps: float, has_shift: bool = False) -> None:
        """Scale of ones for the last dimension of `size`, and a shift of zeros if wanted."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if has_shift else None
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalised tensor of the same shape and dtype."""
        scale = self.weight.float()
        shift = None if self.bias is None else self.bias.float()
        normal = nn.functional.layer_norm(hidden.float(), scale.shape, scale, shift, self.eps)
        return normal.to(hidden.dtype)


def fresh_norm(config: UniDiffConfig, size: int) -> nn.Module:
    """A norm of the configuration's kind for a last dimension of `size`."""
    if config.norm_type == "rms":
        return UniDiffRMSNorm(size, config.rms_norm_eps)
    return UniDiffLayerNorm(size, config.rms_norm_eps, config.norm_bias)
