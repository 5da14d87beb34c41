"""The transformer's parts against their formulas and against torch's and transformers' own."""

import math
from typing import Any

import pytest
import torch
from transformers import Glm4MoeConfig, Qwen3Config
from transformers.models.glm4_moe.modeling_glm4_moe import (
    Glm4MoeRotaryEmbedding,
    apply_rotary_pos_emb,
)
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.layers import (
    UniDiffAttention,
    UniDiffMLP,
    UniDiffRotaryEmbedding,
    rotate,
)
from unidiff.model.norms import UniDiffRMSNorm


def rotary(head_dim: int = 12) -> UniDiffRotaryEmbedding:
    return UniDiffRotaryEmbedding(UniDiffConfig(head_dim=head_dim))


def test_norm_divides_by_the_root_mean_square() -> None:
    norm = UniDiffRMSNorm(4, 0.0)
    norm.weight.data = torch.tensor([1.0, 2.0, 1.0, 1.0])
    out = norm(torch.tensor([[2.0, -2.0, 2.0, 2.0]]))
    torch.testing.assert_close(out, torch.tensor([[1.0, -2.0, 1.0, 1.0]]))


def test_norm_of_bfloat16_is_computed_in_float32() -> None:
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    norm = UniDiffRMSNorm(64, 1e-6)
    expected = norm(hidden.float()).bfloat16()
    out = norm.bfloat16()(hidden)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, rtol=0.008, atol=0)


def test_equal_sections_are_ordinary_rotary_positions() -> None:
    position = torch.tensor([[0, 1, 5, 900]])
    theirs = Qwen3RotaryEmbedding(
        Qwen3Config(head_dim=12, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0})
    )
    ours = rotary()(position.expand(3, 1, 4), torch.float32)
    for mine, other in zip(ours, theirs(torch.zeros(1), position), strict=True):
        torch.testing.assert_close(mine[:, 0], other)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    ],
)
def test_scaled_positions_are_those_of_transformers(scaling: dict[str, Any]) -> None:
    position = torch.tensor([[0, 1, 5, 900]])
    parameters = {"rope_theta": 10_000.0, **scaling}
    fields = {"head_dim": 12, "max_position_embeddings": 512, "rope_parameters": parameters}
    theirs = Qwen3RotaryEmbedding(Qwen3Config(**fields))
    ours = UniDiffRotaryEmbedding(UniDiffConfig(**fields))
    found = ours(position.expand(3, 1, 4), torch.float32)
    for mine, other in zip(found, theirs(torch.zeros(1), position), strict=True):
        torch.testing.assert_close(mine[:, 0], other)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "default"},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    ],
)
def test_heads_may_turn_in_part(scaling: dict[str, Any]) -> None:
    position = torch.tensor([[0, 1, 5, 900]])
    parameters = {"rope_theta": 10_000.0, "partial_rotary_factor": 0.5, **scaling}
    fields = {"head_dim": 12, "max_position_embeddings": 512, "rope_parameters": parameters}
    heads = torch.randn(1, 2, 4, 12, generator=torch.Generator().manual_seed(5))
    theirs = Glm4MoeRotaryEmbedding(Glm4MoeConfig(**fields))(torch.zeros(1), position)
    ours = UniDiffRotaryEmbedding(UniDiffConfig(**fields))
    rotation = ours(position.expand(3, 1, 4), torch.float32)
    assert rotation[0].shape[-1] == 6
    expected, _ = apply_rotary_pos_emb(heads, heads, *theirs)
    found = rotate(heads, *rotation)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[..., 6:], heads[..., 6:])


def test_each_frequency_turns_with_its_own_section() -> None:
    module = rotary()
    for section in range(3):
        position = torch.zeros(3, 1, 1, dtype=torch.int64)
        position[section] = 7
        _, sine = module(position, torch.float32)
        moved = (sine[0, 0, 0, :6] != 0).tolist()
        assert moved == [index % 3 == section for index in range(6)]


@pytest.mark.parametrize("section", [0, 1, 2])
def test_scores_depend_on_differences_of_positions(section: int) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 1, 1, 12, generator=generator).double()
    module = rotary()

    def score(first: int, second: int) -> float:
        position = torch.zeros(3, 1, 2, dtype=torch.int64)
        position[section, 0] = torch.tensor([first, second])
        cosine, sine = module(position, torch.float64)
        turned = rotate(query, cosine[:, :, :1], sine[:, :, :1])
        return float((turned * rotate(key, cosine[:, :, 1:], sine[:, :, 1:])).sum())

    assert score(3, 9) == pytest.approx(score(13, 19), abs=1e-5)
    assert abs(score(3, 9) - score(3, 12)) > 1e-3


def test_positions_stay_exact_in_a_bfloat16_model() -> None:
    position = torch.full((3, 1, 1), 997)
    expected = rotary()(position, torch.float32)
    rounded = rotary().bfloat16()(position, torch.float32)
    assert torch.equal(expected[0], rounded[0])


def test_dropout_of_attention_acts_in_training_only() -> None:
    config = UniDiffConfig(attention_dropout=0.5)
    config._attn_implementation = "eager"
    attention = UniDiffAttention(config, 0)
    hidden = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(3))
    rotation = UniDiffRotaryEmbedding(config)(torch.arange(6).expand(3, 1, 6), torch.float32)
    inputs = (hidden, rotation, None, None, None)
    attention.eval()
    assert torch.equal(attention(*inputs), attention(*inputs))
    attention.train()
    assert not torch.equal(attention(*inputs), attention(*inputs))


def test_mlp_is_swiglu() -> None:
    mlp = UniDiffMLP(UniDiffConfig(hidden_size=2, intermediate_size=1))
    mlp.gate_proj.weight.data = torch.tensor([[1.0, 0.0]])
    mlp.up_proj.weight.data = torch.tensor([[0.0, 3.0]])
    mlp.down_proj.weight.data = torch.tensor([[1.0], [2.0]])
    gate = 2.0 / (1 + math.exp(-2.0))
    assert mlp(torch.tensor([2.0, 5.0])).tolist() == pytest.approx([gate * 15, gate * 30])


def test_query_and_key_norms_and_biases_are_options() -> None:
    names = {name for name, _ in UniDiffAttention(UniDiffConfig(), 0).named_parameters()}
    assert {"q_norm.weight", "k_norm.weight"} <= names
    assert "q_proj.bias" not in names
    plain = UniDiffConfig(use_qk_norm=False, attention_bias=True)
    names = {name for name, _ in UniDiffAttention(plain, 0).named_parameters()}
    assert {"q_proj.bias", "k_proj.bias", "v_proj.bias"} <= names
    assert not {"q_norm.weight", "o_proj.bias"} & names
