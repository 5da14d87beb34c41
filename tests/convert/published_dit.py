"""MDLM and BD3-LM as they are published, at a tiny size: a diffusion transformer in plain PyTorch.

Its modules have the published names. The noise level is fed in and is 0, as where time conditioning
is off; nothing of the package is used.
"""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .published import HEADS, LAYERS, ROWS, WIDTH, Published, blocks_of, full

CONDITION = 16  # size of the vector that moves the norms


class _Scale(nn.Module):
    """LayerNorm without a shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        centred = hidden - hidden.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / (variance + 1e-5).sqrt() * self.weight


class _Table(nn.Module):
    """An embedding whose tensor is called so."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(rows, width))


class _NoiseLevel(nn.Module):
    """Embedding of the noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(256, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION)
        )

    def forward(self, level: float) -> Tensor:
        angles = level * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        waves = torch.cat([angles.cos(), angles.sin()])
        return self.mlp(waves.to(self.mlp[0].weight.dtype))


class _Rotary(nn.Module):
    """Frequencies in a buffer that is saved."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / 10_000 ** (torch.arange(0, dim, 2).float() / dim))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = _Scale(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = _Scale(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.adaLN_modulation = nn.Linear(CONDITION, 6 * width)

    def forward(self, hidden: Tensor, condition: Tensor, inv_freq: Tensor, mask: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6)
        normal = self.norm1(hidden) * (1 + scale1) + shift1
        hidden = hidden + gate1 * self.attn_out(self.attention(normal, inv_freq, mask))
        return hidden + gate2 * self.mlp(self.norm2(hidden) * (1 + scale2) + shift2)

    def attention(self, normal: Tensor, inv_freq: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = normal.shape
        dim = width // HEADS
        angles = torch.arange(length)[:, None] * inv_freq
        heads = self.attn_qkv(normal).view(batch, length, 3, HEADS, dim).permute(2, 0, 3, 1, 4)
        query, key = (self.turned(one, angles) for one in heads[:2])
        scores = query @ key.transpose(-1, -2) / math.sqrt(dim) + mask
        out = scores.softmax(-1) @ heads[2]
        return out.transpose(1, 2).reshape(batch, length, width)

    @staticmethod
    def turned(heads: Tensor, angles: Tensor) -> Tensor:
        real, imaginary = heads.chunk(2, -1)
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat(
            [real * cosine - imaginary * sine, imaginary * cosine + real * sine], dim=-1
        )


class _Output(nn.Module):
    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.norm_final = _Scale(width)
        self.linear = nn.Linear(width, rows)
        self.adaLN_modulation = nn.Linear(CONDITION, 2 * width)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2)
        return self.linear(self.norm_final(hidden) * (1 + scale) + shift)


class _Backbone(nn.Module):
    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.vocab_embed = _Table(rows, width)
        self.sigma_map = _NoiseLevel()
        self.rotary_emb = _Rotary(width // HEADS)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(LAYERS))
        self.output_layer = _Output(width, rows)


class Dit(nn.Module):
    """The reference; `has_clip`: with the bounds of noise levels that BD3-LM saves."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.backbone = _Backbone(config.hidden_size, config.vocab_size)
        if config.has_clip:
            self.register_buffer("sampling_eps_min", torch.tensor(1e-3))
            self.register_buffer("sampling_eps_max", torch.tensor(0.999))

    def forward(self, ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        parts = self.backbone
        condition = nn.functional.silu(parts.sigma_map(0.0))
        hidden = parts.vocab_embed.embedding[ids]
        for block in parts.blocks:
            hidden = block(hidden, condition, parts.rotary_emb.inv_freq, attention_mask)
        return SimpleNamespace(logits=parts.output_layer(hidden, condition))


def _config(**fields: Any) -> dict[str, Any]:
    return {
        "vocab_size": ROWS,
        "model_length": 512,
        "hidden_dim": WIDTH,
        "cond_dim": 129,  # the class's default, which is not what the weights have
        "n_blocks": LAYERS,
        "n_heads": HEADS,
        "dropout": 0.1,
        "time_conditioning": False,
        **fields,
    }


def _reference(has_clip: bool) -> tuple[type[nn.Module], type, dict[str, Any]]:
    return Dit, SimpleNamespace, {"tie_word_embeddings": False, "has_clip": has_clip}


DIT_TABLE = (
    Published("mdlm", _config(model_type="mdlm"), _reference(False), full, mask=ROWS - 1),
    Published(
        "bd3lm",
        _config(
            model_type="bd3lm",
            block_size=4,
            cross_attn=True,
            adaln=True,
            causal=False,
            attn_backend="flex",
            var_min=True,
        ),
        _reference(True),
        blocks_of(4),
        mask=ROWS - 1,
    ),
)
