"""Attention functions, registered under transformers' attention interface.

`eager_attention` is written out for reading and for gradients; `matmul_attention` is what a CPU
without matrix units decodes fastest with in half precision: its `scaled_dot_product_attention`
takes 1.6 times as long at 32 queries over 700 keys and 4 times at one (`unidiff bench decode`).
"""

# Shapes: B batch, Q query rows, S key rows, H heads, G key-value heads, E head dim.

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

MATMUL = "unidiff_matmul"
_MOST_SCORES = 2**24  # scores held at once, elements: 32 MB in bfloat16


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Attention written out; transformers' attention interface, boolean mask, True = attends.

    Args:
        module: holds `num_key_value_groups`.
        query: (B, H, Q, E).
        key: (B, G, S, E).
        value: (B, G, S, E).
        attention_mask: (B, 1, Q, S) bool or None.
        scaling: factor on the scores.
        dropout: probability of dropping a weight in training.
        kwargs: ignored fields of the interface.

    Returns:
        ((B, Q, H, E) output, (B, H, Q, S) weights).
    """
    del kwargs
    groups: int = module.num_key_value_groups  # type: ignore[assignment]  # nn.Module's getattr
    key = key.repeat_interleave(groups, dim=1)
    value = value.repeat_interleave(groups, dim=1)
    score_BHQS = query * scaling @ key.transpose(-1, -2)
    if attention_mask is not None:
        score_BHQS = score_BHQS + additive_mask(attention_mask, score_BHQS.dtype)
    weight_BHQS = score_BHQS.softmax(dim=-1)
    weight_BHQS = nn.functional.dropout(weight_BHQS, dropout, training=module.training)
    return (weight_BHQS @ value).transpose(1, 2).contiguous(), weight_BHQS


def matmul_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention by two batched matrix products, the heads of a group side by side as queries.

    Args:
        module: not read.
        query: (B, H, Q, E).
        key: (B, G, S, E); fastest with the S slots innermost in memory.
        value: (B, G, S, E).
        attention_mask: (B, 1, Q, S) bool, True = attends; or (B, 1, Q, at most S) added to the
            scores of the last keys; None: everything attends.
        scaling: factor on the scores.
        dropout: must be 0: there is no training with it.
        kwargs: ignored fields of the interface.

    Returns:
        ((B, Q, H, E) output, None).
    """
    del module, kwargs
    if dropout:
        raise ValueError(f"{MATMUL!r} has no dropout, got {dropout}: train with 'sdpa' or 'eager'")
    batch, heads, length, dim = query.shape
    groups, num_slots = key.shape[1], key.shape[2]
    query = (query * scaling).view(batch, groups, heads // groups, length, dim)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        attention_mask = additive_mask(attention_mask, query.dtype)
    output = query.new_empty(batch, length, heads, dim)
    rows = max(1, _MOST_SCORES // (batch * heads * num_slots))
    for start in range(0, length, rows):
        part = slice(start, min(start + rows, length))
        score = query[..., part, :].reshape(batch, groups, -1, dim) @ key.transpose(-1, -2)
        if attention_mask is not None:
            spread = score.view(batch, groups, -1, part.stop - start, num_slots)
            first = num_slots - attention_mask.shape[-1]
            spread[..., first:].add_(attention_mask[:, None, :, part])
        answer = score.softmax(-1) @ value
        output[:, part] = answer.view(batch, heads, -1, dim).transpose(1, 2)
    return output, None


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a bool mask attends, the lowest number elsewhere; same shape."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def decoding_attention(implementation: str, sample: Tensor) -> str:
    """Name of the attention function that decodes where training uses `implementation`."""
    return MATMUL if implementation == "sdpa" and prefers_matmul(sample) else implementation


def prefers_matmul(sample: Tensor) -> bool:
    """Whether decoding with such keys is fastest by `matmul_attention`: half precision on a CPU."""
    return sample.device.type == "cpu" and sample.dtype in (torch.bfloat16, torch.float16)


ALL_ATTENTION_FUNCTIONS.register(MATMUL, matmul_attention)
