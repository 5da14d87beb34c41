"""Parts of a layer for some tokens of a canvas, which attend over the stored keys of all.

Chosen tokens of all rows lie one behind the other, without padding; only attention spreads them
over rows. Rows may choose different numbers of tokens, so what a row gets does not depend on its
neighbours.
"""

# Shapes: B rows, W canvas, N chosen tokens of all rows, R most chosen tokens of a row, H heads,
# G key-value heads, E head dim, D width.

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import eager_attention
from .layers import UniDiffAttention, UniDiffLayer, rotate
from .modulation import Part

Rotation = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Tokens:
    """Chosen tokens of each row, in order.

    Attributes:
        flat_N: (N,) int64 places in the (B * W) tokens.
        counts: chosen tokens of each row.
        slot_N: (N,) int64 places in (B * R) padded rows; None where no row needs padding.
    """

    flat_N: Tensor
    counts: tuple[int, ...]
    slot_N: Tensor | None

    @classmethod
    def of(cls, chosen_BW: Tensor) -> "Tokens":
        """The True places of each row."""
        counts = tuple(chosen_BW.sum(1).tolist())
        flat_N = torch.nonzero(chosen_BW.reshape(-1))[:, 0]
        if len(set(counts)) == 1:
            return cls(flat_N, counts, None)
        rank_BW = chosen_BW.cumsum(1) - 1
        row_B1 = torch.arange(len(counts), device=chosen_BW.device)[:, None]
        slot_BW = row_B1 * max(counts) + rank_BW
        return cls(flat_N, counts, slot_BW.reshape(-1)[flat_N])

    @property
    def width(self) -> int:
        """R, most chosen tokens of a row."""
        return max(self.counts)

    def are_real(self, device: torch.device) -> Tensor:
        """(B, R) bool, False behind a row's last chosen token."""
        count_B = torch.tensor(self.counts, device=device)
        return torch.arange(self.width, device=device) < count_B[:, None]

    def spread(self, values_N: Tensor) -> Tensor:
        """(B, R, ...) rows of (N, ...) values, zeros behind a row's last one."""
        shape = (len(self.counts), self.width, *values_N.shape[1:])
        if self.slot_N is None:
            return values_N.reshape(shape)
        padded = values_N.new_zeros(shape[0] * shape[1], *shape[2:])
        return padded.index_copy_(0, self.slot_N, values_N).view(shape)

    def collect(self, values_BR: Tensor) -> Tensor:
        """(N, ...) values of (B, R, ...) rows, without padding."""
        flat = values_BR.reshape(-1, *values_BR.shape[2:])
        return flat if self.slot_N is None else flat.index_select(0, self.slot_N)

    def turned(self, rotation: Rotation) -> Rotation:
        """Cosine and sine of the chosen tokens, each (N, 1, R) with R rotated dimensions."""
        return rotation[0].index_select(0, self.flat_N), rotation[1].index_select(0, self.flat_N)


def queries(attention: UniDiffAttention, hidden_ND: Tensor, turned: Rotation) -> Tensor:
    """(N, H, E) rotated queries of normalised hidden states."""
    return rotate(attention.heads(attention.q_norm, attention.q_proj(hidden_ND)), *turned)


def keys(attention: UniDiffAttention, hidden_ND: Tensor, turned: Rotation) -> Tensor:
    """(N, G, E) rotated keys of normalised hidden states."""
    return rotate(attention.heads(attention.k_norm, attention.k_proj(hidden_ND)), *turned)


def values(attention: UniDiffAttention, hidden_ND: Tensor) -> Tensor:
    """(N, G, E) values of normalised hidden states."""
    return attention.v_proj(hidden_ND).unflatten(-1, (-1, attention.config.head_dim))


def attend(
    attention: UniDiffAttention,
    query_NHE: Tensor,
    tokens: Tokens,
    key_BWGE: Tensor,
    value_BWGE: Tensor,
    key_mask: Tensor | None,
) -> Tensor:
    """(N, D) attention output of the chosen tokens over all stored keys of their rows.

    Args:
        attention: the layer's.
        query_NHE: rotated queries.
        tokens: whose they are.
        key_BWGE: (B, W, G, E) rotated keys of every token.
        value_BWGE: (B, W, G, E).
        key_mask: (B, 1, 1, W) bool, True = attends; None: everything.
    """
    query_BHRE = tokens.spread(query_NHE).transpose(1, 2)
    if key_mask is not None:
        key_mask = key_mask.expand(-1, -1, query_BHRE.shape[2], -1)
    function: Any = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, eager_attention
    )
    output_BRHE, _ = function(
        attention,
        query_BHRE,
        key_BWGE.transpose(1, 2),
        value_BWGE.transpose(1, 2),
        key_mask,
        dropout=0.0,
        scaling=attention.config.head_dim**-0.5,
        is_causal=False,
    )
    return attention.o_proj(tokens.collect(output_BRHE).flatten(1))


def attention_weights(query_BRHE: Tensor, key_BWGE: Tensor, key_mask: Tensor | None) -> Tensor:
    """(B, H, R, W) attention weights of queries over all stored keys."""
    batch, rows, heads, dim = query_BRHE.shape
    groups = key_BWGE.shape[2]
    query_BHRE = query_BRHE.transpose(1, 2) * dim**-0.5
    query_BGQE = query_BHRE.reshape(batch, groups, -1, dim)  # Q = H / G * R, head by head
    score_BGQW = query_BGQE @ key_BWGE.permute(0, 2, 3, 1)
    if key_mask is not None:
        score_BGQW = score_BGQW.masked_fill(~key_mask, torch.finfo(score_BGQW.dtype).min)
    return score_BGQW.softmax(-1).view(batch, heads, rows, -1)


def feed_forward(layer: UniDiffLayer, around: Part, before_ND: Tensor, behind_ND: Tensor) -> Tensor:
    """(N, D) output of the layer's MLP or mixture.

    Args:
        layer: it.
        around: what stands around its MLP.
        before_ND: residual stream before the attention.
        behind_ND: and behind it.
    """
    return layer.mlp(around.enter(layer.mlp_stream(before_ND, behind_ND)))
