"""Attention functions against torch's own."""

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface

from unidiff.model import attention
from unidiff.model.attention import MATMUL, eager_attention, matmul_attention


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.nn.Module, list[Tensor], Tensor]:
    """(module, query, key and value, mask) of 2 rows, 4 heads in 2 groups, 7 queries, 9 keys."""
    generator = torch.Generator().manual_seed(2)
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    query = torch.randn(2, 4, 7, 8, generator=generator, dtype=dtype)
    key, value = torch.randn(2, 2, 2, 9, 8, generator=generator, dtype=dtype)
    mask = torch.rand(2, 1, 7, 9, generator=generator) < 0.6
    mask[..., 0] = True
    return module, [query, key, value], mask


def expected(tensors: list[Tensor], mask: Tensor | None) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        *tensors, attn_mask=mask, enable_gqa=True
    ).transpose(1, 2)


def test_eager_attention_equals_torchs_own() -> None:
    module, tensors, mask = inputs()
    out, weight = eager_attention(module, *tensors, mask, scaling=8**-0.5)
    torch.testing.assert_close(out, expected(tensors, mask))
    assert not weight[~mask.expand_as(weight)].any()
    torch.testing.assert_close(weight.sum(-1), torch.ones_like(weight[..., 0]))


@pytest.mark.parametrize("most_scores", [2**24, 2 * 4 * 9 * 3, 1])
@pytest.mark.parametrize("kind", ["bool", "additive", "last keys", "none"])
def test_matmul_attention_equals_torchs_own_in_any_number_of_parts(
    kind: str, most_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_MOST_SCORES", most_scores)
    module, tensors, mask = inputs()
    tensors[1] = tensors[1].transpose(-1, -2).contiguous().transpose(-1, -2)
    given: Tensor | None = mask if kind == "bool" else None
    if kind == "additive":
        given = torch.zeros_like(mask, dtype=torch.float64).masked_fill(~mask, -1e300)
    if kind == "last keys":
        mask[..., :4] = True
        given = torch.zeros(2, 1, 7, 5, dtype=torch.float64).masked_fill(~mask[..., 4:], -1e300)
    out, _ = matmul_attention(module, *tensors, given, scaling=8**-0.5)
    torch.testing.assert_close(out, expected(tensors, None if kind == "none" else mask))


def test_matmul_attention_is_registered_and_refuses_dropout() -> None:
    assert AttentionInterface().get_interface(MATMUL, None) is matmul_attention
    module, tensors, _ = inputs()
    with pytest.raises(ValueError, match="no dropout"):
        matmul_attention(module, *tensors, None, scaling=1.0, dropout=0.1)
