"""A mixture of experts against a loop over tokens, in every form of its products."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unidiff.model import experts
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.experts import (
    STACKS,
    UniDiffExperts,
    UniDiffMixture,
    grouped_linear,
    looped_linear,
)
from unidiff.model.layers import UniDiffLayer, UniDiffMLP

X, K, D, INNER = 8, 2, 16, 24


def mixture(dtype: torch.dtype = torch.float32, **fields: Any) -> UniDiffMixture:
    settings = {"num_experts": X, "num_experts_per_tok": K, "hidden_size": D}
    config = UniDiffConfig(**settings, moe_intermediate_size=INNER, **fields)
    shared = UniDiffMLP(config, INNER) if config.num_shared_experts else None
    made = UniDiffMixture(config, shared)
    generator = torch.Generator().manual_seed(3)
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    return made.to(dtype)


def tokens(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(4)).to(dtype)


def by_token(made: UniDiffMixture, hidden_ND: Tensor) -> Tensor:
    """(N, D) the published sum, one token and one expert at a time."""
    routes, stacks, rows = made.gate(hidden_ND), made.experts, []
    for token, row in enumerate(hidden_ND):
        total = torch.zeros_like(row)
        for place in range(K):
            expert = int(routes.expert_NK[token, place])
            gate = stacks.gate_proj[expert] @ row
            inner = gate * torch.sigmoid(gate) * (stacks.up_proj[expert] @ row)
            total = total + routes.weight_NK[token, place] * (stacks.down_proj[expert] @ inner)
        rows.append(total if made.shared_experts is None else total + made.shared_experts(row))
    return torch.stack(rows)


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mixture_is_the_weighted_sum_over_tokens(dtype: torch.dtype, shared: int) -> None:
    made, hidden = mixture(dtype, num_shared_experts=shared), tokens(3, 7, dtype=dtype)
    expected = by_token(made, hidden.flatten(0, 1)).view_as(hidden)
    torch.testing.assert_close(made(hidden), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_the_loop_over_tokens(dtype: torch.dtype) -> None:
    made, hidden = mixture(dtype), tokens(21, dtype=dtype).requires_grad_()
    seed = torch.randn(21, D, generator=torch.Generator().manual_seed(5)).to(dtype)
    leaves = [hidden, *made.parameters()]
    found = torch.autograd.grad((made(hidden) * seed).sum(), leaves)
    expected = torch.autograd.grad((by_token(made, hidden) * seed).sum(), leaves)
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_gets_the_same_in_any_batch(dtype: torch.dtype) -> None:
    made, hidden = mixture(dtype), tokens(40, dtype=dtype)
    together = made(hidden)
    crowd = hidden[3].expand(200, -1)  # all of one token's experts, which have no limit
    for batch in (hidden[3:4], torch.cat([crowd, hidden]), hidden.flip(0)):
        at = int((batch == hidden[3]).all(-1).nonzero()[0])
        torch.testing.assert_close(made(batch)[at], together[3], rtol=1e-5, atol=1e-6)


def counted(rows_P: list[int]) -> Tensor:
    return torch.tensor(rows_P).cumsum(0).to(torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [[3, 0, 1, 6], [0, 0, 0, 10], [10, 0, 0, 0]])
def test_a_grouped_product_is_the_loop(dtype: torch.dtype, rows: list[int]) -> None:
    weight = torch.randn(4, INNER, D, generator=torch.Generator().manual_seed(6)).to(dtype)
    assert experts._has_grouped_product(weight) == hasattr(nn.functional, "grouped_mm")
    hidden = tokens(10, dtype=dtype)
    expected = looped_linear(hidden, weight, counted(rows))
    found = grouped_linear(hidden, weight, counted(rows))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    start = rows[0]
    if start:
        torch.testing.assert_close(found[:start], hidden[:start] @ weight[0].T)


@pytest.mark.parametrize(
    "weight", [torch.randn(4, 5, 3), torch.randn(4, 8, 8).double()], ids=["odd", "float64"]
)
def test_what_torch_does_not_group_is_looped(weight: Tensor) -> None:
    hidden = torch.randn(6, weight.shape[2], dtype=weight.dtype)
    found = grouped_linear(hidden, weight, counted([2, 0, 4, 0]))
    expected = torch.cat([hidden[:2] @ weight[0].T, hidden[2:] @ weight[2].T])
    torch.testing.assert_close(found, expected)


def test_no_tokens_give_no_tokens() -> None:
    for dtype in (torch.float32, torch.float64):
        assert mixture(dtype)(tokens(0, dtype=dtype)).shape == (0, D)


def test_autocast_multiplies_in_its_own_type(monkeypatch: pytest.MonkeyPatch) -> None:
    made, hidden = mixture(), tokens(9)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(hidden)
        monkeypatch.setattr(experts, "_has_grouped_product", lambda weight: False)
        looped = made(hidden)
    assert found.dtype == looped.dtype == hidden.dtype
    torch.testing.assert_close(found, looped)
    assert not torch.equal(found, made(hidden))
    torch.testing.assert_close(found, made(hidden), rtol=0.05, atol=0.05)


def test_bfloat16_is_near_float32() -> None:
    made, hidden = mixture(), tokens(30).bfloat16()
    exact = made(hidden.float())
    rounded = made.bfloat16()(hidden)
    assert rounded.dtype == torch.bfloat16
    error = (rounded.float() - exact).norm() / exact.norm()
    assert error < 0.01


def test_layers_are_dense_where_the_configuration_says_so() -> None:
    config = UniDiffConfig(
        num_experts=4, num_hidden_layers=3, mlp_only_layers=[1], num_shared_experts=2
    )
    layers = [UniDiffLayer(config, index) for index in range(3)]
    assert config.mixture_layers == (0, 2)
    assert [type(layer.mlp) for layer in layers] == [UniDiffMixture, UniDiffMLP, UniDiffMixture]
    assert layers[0].mlp.shared_experts.up_proj.weight.shape == (256, 64)
    assert layers[1].mlp.up_proj.weight.shape == (128, 64)


def test_stacks_are_all_the_weights_of_experts() -> None:
    config = UniDiffConfig(num_experts=4, moe_intermediate_size=24)
    shapes = {name: tuple(one.shape) for name, one in UniDiffExperts(config).named_parameters()}
    assert shapes == {"gate_proj": (4, 24, 64), "up_proj": (4, 24, 64), "down_proj": (4, 64, 24)}
    assert tuple(shapes) == STACKS
