"""Norms behind sums or once before both parts, learned positions: decoded and trained as others.

That these are the published blocks is checked in tests/convert/test_families.py.
"""

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from small_decoding import CACHED, assert_rows_equal_alone, decode, prompts, tiny_model

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion

BIASED: dict[str, Any] = {
    "norm_type": "layer",
    "norm_bias": True,
    "mlp_type": "plain",
    "attention_bias": True,
    "output_bias": True,
    "head_bias": True,
}
BERT: dict[str, Any] = {
    **BIASED,
    "hidden_act": "gelu",
    "norm_placement": "post",
    "use_qk_norm": False,
    "num_positions": 70,
    "first_position": 2,
    "max_position_embeddings": 64,
    "num_segments": 2,
    "head_transform": True,
}
PHI: dict[str, Any] = {
    **BIASED,
    "hidden_act": "gelu_new",
    "norm_placement": "parallel",
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.5,
    },
}
UNIDISC: dict[str, Any] = {
    "norm_placement": "sandwich",
    "qk_norm_type": "all_heads",
    "mlp_type": "plain",
    "hidden_act": "gelu_pytorch_tanh",
    "head_bias": True,
    "picture_axes": True,
}
BLOCKS = pytest.mark.parametrize("block", [BERT, PHI, UNIDISC], ids=["bert", "phi", "unidisc"])


def random(block: dict[str, Any], pattern: str) -> UniDiffForBlockDiffusion:
    """A tiny model in float64, biases and norms random too."""
    model = tiny_model(pattern, **block)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                mean = 1.0 if name.endswith("norm.weight") else 0.0
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + mean)
    return model


@BLOCKS
@pytest.mark.parametrize("pattern", CACHED)
def test_cached_decoding_equals_recomputing_everything(block: dict[str, Any], pattern: str) -> None:
    ids, mask = prompts([7, 13, 4])
    model = random(block, pattern)
    options = {"max_new_tokens": [15, 9, 12], "max_denoising_steps": 3, "seed": 5}
    cached = decode(model, ids, mask, **options)
    recomputed = decode(model, ids, mask, cache_reuse="none", **options)
    assert torch.equal(cached.sequences, recomputed.sequences)
    torch.testing.assert_close(cached.logprobs, recomputed.logprobs, rtol=0, atol=1e-10)


@BLOCKS
def test_batched_row_equals_the_row_alone(block: dict[str, Any]) -> None:
    own = {"max_new_tokens": torch.tensor([11, 5, 8])}
    assert_rows_equal_alone(random(block, "full"), [7, 13, 4], 3, {"max_denoising_steps": 3}, own)


@BLOCKS
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dual", {"reuse_interval": 1}),
        ("interval", {"reuse_share": 1.0, "reuse_prompt_interval": 1}),
        ("elastic", {"reuse_gamma": 1.1}),
    ],
)
def test_refreshing_stale_keys_at_every_step_equals_no_reuse(
    block: dict[str, Any], kind: str, options: dict[str, Any]
) -> None:
    model, (ids, mask) = random(block, "full"), prompts([9, 3])
    exact = decode(model, ids, mask, cache_reuse="none", max_new_tokens=9, seed=3)
    reused = decode(model, ids, mask, cache_reuse=kind, max_new_tokens=9, seed=3, **options)
    assert torch.equal(reused.sequences, exact.sequences)
    torch.testing.assert_close(reused.logprobs, exact.logprobs, rtol=1e-9, atol=1e-9)


@BLOCKS
def test_packed_weights_decode_the_same_tokens(block: dict[str, Any]) -> None:
    model, (ids, mask) = random(block, "block_causal").float(), prompts([7, 4])
    plain = decode(model, ids, mask, max_new_tokens=9, seed=3)
    packed = decode(model, ids, mask, max_new_tokens=9, seed=3, prepack_weights=True)
    assert torch.equal(packed.sequences, plain.sequences)


@BLOCKS
def test_every_weight_gets_a_gradient(block: dict[str, Any]) -> None:
    model, (ids, _) = random(block, "full").train(), prompts([9])
    model(ids).logits.square().mean().backward()
    assert not [name for name, one in model.named_parameters() if one.grad is None]


@BLOCKS
def test_fresh_norms_change_nothing(block: dict[str, Any]) -> None:
    model = tiny_model("full", **block)
    norms = {n: one for n, one in model.named_parameters() if "norm." in n}
    assert norms
    for name, weight in norms.items():
        assert (weight == (1.0 if name.endswith("weight") else 0.0)).all(), name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"norm_placement": "both"}, "norm_placement must be one of"),
        ({"norm_placement": "post", "modulation_dim": 4}, "modulation_dim moves norms"),
        ({"num_positions": 64, "max_position_embeddings": 64, "first_position": 1}, "= 65 rows"),
        ({"norm_bias": True}, "norm_bias"),
        ({"qk_norm_type": "row"}, "qk_norm_type must be one of"),
        ({"num_positions": 4096, "picture_axes": True}, "picture_axes are rotary positions"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(StrictDataclassClassValidationError, match=words):
        UniDiffConfig(**fields)
