"""UniDisc as it is published, at a tiny size: its transformer in plain PyTorch.

Its modules have the published names; nothing of the package is used.
"""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .published import HEADS, LAYERS, ROWS, Published, full

FIRST = 300  # of the codes; the mask is before it
SIDE = 3  # codes along each side of a picture


class _Rms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden / (hidden.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.weight


class _Table(nn.Module):
    """An embedding whose tensor is called so."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(rows, width))


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, hidden: Tensor, angles: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self.attn_qkv(hidden).chunk(3, -1)
        batch, length, width = value.shape
        query, key, value = (
            one.view(batch, length, HEADS, width // HEADS).transpose(1, 2)
            for one in (self.q_norm(query), self.k_norm(key), value)
        )
        query, key = (self.turned(one, angles) for one in (query, key))
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // HEADS) + mask
        return self.attn_out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    @staticmethod
    def turned(heads: Tensor, angles: Tensor) -> Tensor:
        one, two = heads.chunk(2, -1)
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([one * cosine - two * sine, one * sine + two * cosine], -1)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _Rms(width), _Rms(width)
        self.pre_residual_norm, self.post_ff_norm = _Rms(width), _Rms(width)
        self.attention = _Attention(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, hidden: Tensor, angles: Tensor, mask: Tensor) -> Tensor:
        output = self.attention(self.norm1(hidden), angles, mask)
        hidden = hidden + self.pre_residual_norm(output)
        return hidden + self.post_ff_norm(self.mlp(self.norm2(hidden)))


class _Output(nn.Module):
    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.norm_final = _Rms(width)
        self.linear = nn.Linear(width, rows)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(self.norm_final(hidden))


class Unidisc(nn.Module):
    """The reference."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        width, rows = config.hidden_size, config.vocab_size
        self.vocab_embed, self.modality_embed = _Table(rows, width), _Table(2, width)
        self.img_count_embedding = nn.Parameter(torch.zeros(16, width))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(LAYERS))
        self.output_layer = _Output(width, rows)

    def forward(
        self, ids: Tensor, attention_mask: Tensor, pictures: tuple[int, ...] = ()
    ) -> SimpleNamespace:
        """Logits; `pictures` are the places at which whole pictures begin, else all is text."""
        length = ids.shape[1]
        hidden = self.vocab_embed.embedding[ids] + self.modality_embed.embedding[0]
        dim = self.config.hidden_size // HEADS
        angles = torch.outer(torch.arange(length).float(), frequencies(dim))
        for number, start in enumerate(pictures):
            place = slice(start, start + SIDE**2)
            angles[place] = picture_angles(dim)
            more = self.modality_embed.embedding[1] - self.modality_embed.embedding[0]
            hidden[:, place] += more + self.img_count_embedding[number]
        for block in self.blocks:
            hidden = block(hidden, angles, attention_mask)
        return SimpleNamespace(logits=self.output_layer(hidden))


def frequencies(dim: int) -> Tensor:
    """(dim / 2,) of ordinary rotary positions."""
    return 10_000.0 ** -(torch.arange(0, dim, 2).float() / dim)


def picture_angles(dim: int) -> Tensor:
    """(codes, dim / 2): the tables of rows and of columns, half as fine, one number of each."""
    steps = torch.arange(SIDE).float()
    table = torch.outer(steps, frequencies(dim // 2))
    row = table[:, None].expand(SIDE, SIDE, -1)
    column = table[None].expand(SIDE, SIDE, -1)
    return torch.stack([row, column], -1).flatten(2).flatten(0, 1)


def _config(**fields: Any) -> dict[str, Any]:
    return {
        "model_type": "unidisc",
        "n_heads": HEADS,
        "text_vocab_size": FIRST,
        "img_length": SIDE**2,
        **fields,
    }


UNIDISC = Published(
    "unidisc",
    _config(),
    (Unidisc, SimpleNamespace, {"tie_word_embeddings": False}),
    full,
    mask=FIRST - 1,
    num_text=FIRST - 1,
    specials=("<|startoftext|>",),
    rows=ROWS,
)
