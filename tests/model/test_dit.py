"""The block of a diffusion transformer decodes, trains and adapts as the Llama-family one does.

That it is the published one is checked in tests/convert/test_families.py.
"""

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from small_decoding import CACHED, assert_rows_equal_alone, decode, prompts, tiny_model

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.training.lora import LoRAOptions, add_lora

DIT: dict[str, Any] = {
    "norm_type": "layer",
    "mlp_type": "plain",
    "modulation_dim": 10,
    "head_bias": True,
    "use_qk_norm": False,
    "hidden_act": "gelu_pytorch_tanh",
}


def dit(pattern: str) -> UniDiffForBlockDiffusion:
    """A tiny one in float64, biases and norms random too."""
    model = tiny_model(pattern, **DIT)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                mean = 1.0 if "norm" in name else 0.0
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + mean)
    return model


@pytest.mark.parametrize("pattern", CACHED)
def test_cached_decoding_equals_recomputing_everything(pattern: str) -> None:
    ids, mask = prompts([7, 13, 4])
    options = {"max_new_tokens": [15, 9, 12], "max_denoising_steps": 3, "seed": 5}
    cached = decode(dit(pattern), ids, mask, **options)
    recomputed = decode(dit(pattern), ids, mask, cache_reuse="none", **options)
    assert torch.equal(cached.sequences, recomputed.sequences)
    torch.testing.assert_close(cached.logprobs, recomputed.logprobs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pattern", ["block_causal", "full"])
def test_batched_row_equals_the_row_alone(pattern: str) -> None:
    own = {"max_new_tokens": torch.tensor([11, 5, 8])}
    assert_rows_equal_alone(dit(pattern), [7, 13, 4], 3, {"max_denoising_steps": 3}, own)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dual", {"reuse_interval": 1}),
        ("interval", {"reuse_share": 1.0, "reuse_prompt_interval": 1}),
        ("elastic", {"reuse_gamma": 1.1}),
    ],
)
def test_refreshing_stale_keys_at_every_step_equals_no_reuse(
    kind: str, options: dict[str, Any]
) -> None:
    ids, mask = prompts([9, 3])
    exact = decode(dit("full"), ids, mask, cache_reuse="none", max_new_tokens=9, seed=3)
    reused = decode(dit("full"), ids, mask, cache_reuse=kind, max_new_tokens=9, seed=3, **options)
    assert torch.equal(reused.sequences, exact.sequences)
    torch.testing.assert_close(reused.logprobs, exact.logprobs, rtol=1e-9, atol=1e-9)


def test_packed_weights_decode_the_same_tokens() -> None:
    model, (ids, mask) = dit("block_causal").float(), prompts([7, 4])
    plain = decode(model, ids, mask, max_new_tokens=9, seed=3)
    packed = decode(model, ids, mask, max_new_tokens=9, seed=3, prepack_weights=True)
    assert torch.equal(packed.sequences, plain.sequences)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_weight_gets_a_gradient(checkpointed: bool) -> None:
    model = dit("full").train()
    if checkpointed:
        model.gradient_checkpointing_enable()
    ids, _ = prompts([9])
    model(ids).logits.square().mean().backward()
    assert not [name for name, one in model.named_parameters() if one.grad is None]


def test_default_lora_adapts_the_layers_that_there_are() -> None:
    model, (ids, _) = dit("full"), prompts([9])
    before = model(ids).logits
    add_lora(model, LoRAOptions(r=2))
    assert torch.equal(model(ids).logits, before)
    model(ids).logits.square().mean().backward()
    tuned = {
        name.split(".lora_")[0] for name, one in model.named_parameters() if one.grad is not None
    }
    layers = range(model.config.num_hidden_layers)
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    names = (*names, "mlp.up_proj", "mlp.down_proj")
    assert tuned == {f"model.layers.{layer}.{name}" for layer in layers for name in names}


@pytest.mark.parametrize(
    ("field", "value"), [("norm_type", "batch"), ("mlp_type", "swiglu"), ("modulation_dim", 0)]
)
def test_an_unknown_part_of_a_block_is_refused(field: str, value: object) -> None:
    with pytest.raises(StrictDataclassClassValidationError, match=field):
        UniDiffConfig(**{field: value})
