"""The configuration: defaults, derived values, contradictions and a round trip."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from unidiff.model.configuration import ATTENTION_PATTERNS, UniDiffConfig
from unidiff.tokens.layout import contiguous_layout

LAYOUT = contiguous_layout(
    {"text": 40, "image": 8}, mask_token_id=1, pad_token_id=0, end_token_ids=(3,)
)
HALF = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}


def test_defaults_fill_the_fields_that_follow_from_others() -> None:
    config = UniDiffConfig(num_attention_heads=4)
    assert config.num_key_value_heads == 4
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10_000.0}
    assert config.bidirectional_spans == []
    assert config.attention_pattern == "causal_context"


def test_a_checkpoint_without_layout_is_text_only() -> None:
    layout = UniDiffConfig(vocab_size=50, eos_token_id=[3, 4]).layout
    assert set(layout.ranges) == {"text"}
    assert layout.range_of("text").stop == 50
    assert layout.end_token_ids == (3, 4)


def test_a_mixture_fills_the_fields_of_its_experts() -> None:
    config = UniDiffConfig(num_experts=4, num_hidden_layers=3, rope_parameters=HALF)
    assert config.moe_intermediate_size == config.intermediate_size
    assert config.mixture_layers == (0, 1, 2)
    assert config.rotary_dim == 16
    assert UniDiffConfig().mixture_layers == ()
    assert UniDiffConfig().rotary_dim == 32


@pytest.mark.parametrize("pattern", ATTENTION_PATTERNS)
def test_only_block_causal_has_a_grid(pattern: str) -> None:
    config = UniDiffConfig(attention_pattern=pattern, canvas_length=8)
    assert config.grid == (8 if pattern == "block_causal" else None)


def test_round_trip_keeps_every_field(tmp_path: Path) -> None:
    config = UniDiffConfig(
        vocab_size=64,
        token_layout=LAYOUT.to_dict(),
        attention_pattern="block_causal",
        canvas_length=4,
        num_key_value_heads=1,
        trained_on_visible=True,
        noise_process="uniform",
        uniform_prediction="posterior",
        num_experts=8,
        n_group=4,
        topk_group=2,
        mlp_only_layers=[1],
        use_expert_bias=True,
        rope_parameters=HALF,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, UniDiffConfig)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.layout == LAYOUT


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_pattern": "causal"}, "attention_pattern must be one of"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "multiple of num_key_value_heads"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"logits_shift": 2}, "logits_shift must be 0 or 1"),
        ({"canvas_length": 0}, "canvas_length must be >= 1"),
        ({"noise_process": "gaussian"}, "noise_process must be one of"),
        ({"noise_process": "uniform"}, "needs uniform_prediction"),
        ({"uniform_prediction": "posterior"}, "leave it out"),
        (
            {"noise_process": "uniform", "uniform_prediction": "posterior", "logits_shift": 1},
            "needs logits_shift=0",
        ),
        ({"mask_token_id": 512}, "mask_token_id must lie in"),
        ({"mask_token_id": -1}, "mask_token_id must lie in"),
        ({"bidirectional_spans": ["image"]}, "not supported yet"),
        ({"vocab_size": 47, "token_layout": LAYOUT.to_dict()}, "uses 48 ids but vocab_size is 47"),
        ({"mask_token_id": 2, "token_layout": LAYOUT.to_dict()}, "make them equal"),
        ({"router_scores": "tanh"}, "router_scores must be one of"),
        ({"num_experts": 8, "num_experts_per_tok": 9}, r"must lie in \[1, 8\]"),
        ({"num_experts": 8, "num_experts_per_tok": 0}, r"must lie in \[1, 8\]"),
        ({"num_experts": 8, "n_group": 3}, "n_group must divide num_experts"),
        ({"num_experts": 8, "n_group": 0}, "n_group must divide num_experts"),
        ({"num_experts": 8, "n_group": 8, "topk_group": 2}, "groups of at least 2"),
        ({"num_experts": 8, "n_group": 4, "topk_group": 5}, "of which topk_group are chosen"),
        (
            {"num_experts": 8, "n_group": 4, "topk_group": 1, "num_experts_per_tok": 3},
            r"must lie in \[1, 2\]",
        ),
        ({"num_experts": 8, "mlp_only_layers": [2]}, r"names \[2\]; there are 2 layers"),
        (
            {"head_dim": 12, "rope_parameters": {**HALF, "partial_rotary_factor": 0.25}},
            "got 12 and 3",
        ),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}}, "void the cache"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        UniDiffConfig(**fields)


def test_a_field_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        UniDiffConfig(hidden_size="wide")


def test_a_contradiction_in_a_file_is_refused(tmp_path: Path) -> None:
    UniDiffConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"canvas_length": 0}))
    with pytest.raises(StrictDataclassError, match="canvas_length"):
        UniDiffConfig.from_pretrained(tmp_path)
