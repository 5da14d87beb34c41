"""Models with mixtures of experts do what the dense ones do: decode, cache, reuse, score, save."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_decoding import (
    CACHED,
    PATTERNS,
    assert_rows_equal_alone,
    decode,
    prompts,
    random_model,
    tiny_model,
)
from torch import Tensor

from unidiff.data.collator import BlockCollator
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.experts import STACKS, UniDiffMixture
from unidiff.model.fingerprint import base_fingerprint, weights_key
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.reuse_layers import feed_forward

EXPERTS: dict[str, Any] = {
    "num_experts": 8,
    "moe_intermediate_size": 24,
    "num_shared_experts": 1,
    "mlp_only_layers": [0],
    "router_scores": "sigmoid",
    "routed_scaling_factor": 2.5,
    "n_group": 4,
    "topk_group": 2,
    "use_expert_bias": True,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.5,
    },
}
SAMPLE = ([2, 9, 10, 11, 12, 13, 14, 15], [-1, -1, 0, 0, 0, 0, 1, 1])
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def with_biases(model: UniDiffForBlockDiffusion) -> UniDiffForBlockDiffusion:
    """The model with random biases of its experts."""
    generator = torch.Generator().manual_seed(9)
    for bias in model.buffers():
        bias.copy_(torch.randn(bias.shape, generator=generator) * 0.2)
    return model


def mixed_model(pattern: str) -> UniDiffForBlockDiffusion:
    """The decoding tests' model with a dense layer and one of experts, in float64."""
    return with_biases(tiny_model(pattern, **EXPERTS))


@pytest.mark.parametrize("mode", ["diffusion", "ar", "self_speculative"])
def test_cached_decoding_equals_recomputing_everything(mode: str) -> None:
    model = mixed_model("causal_context")
    ids, mask = prompts([7, 13, 4])
    options = {"max_new_tokens": 15, "decoding_mode": mode, "seed": 5}
    cached = decode(model, ids, mask, **options)
    plain = decode(model, ids, mask, cache_reuse="none", **options)
    assert torch.equal(cached.sequences, plain.sequences)
    torch.testing.assert_close(cached.logprobs, plain.logprobs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_rows_decode_together_as_alone(pattern: str) -> None:
    shared = {"max_denoising_steps": 3, "max_new_tokens": 12}
    assert_rows_equal_alone(mixed_model(pattern), [5, 9, 3], 4, shared, {})


@pytest.mark.parametrize("pattern", CACHED)
def test_decoding_from_packed_weights_gives_the_same_tokens(pattern: str) -> None:
    model = mixed_model(pattern).float()
    ids, mask = prompts([7, 13])
    plain = decode(model, ids, mask, max_new_tokens=12, seed=4)
    packed = decode(model, ids, mask, max_new_tokens=12, seed=4, prepack_weights=True)
    assert torch.equal(plain.sequences, packed.sequences)


@pytest.mark.parametrize("reuse", ["delayed", "interval", "elastic"])
def test_approximate_caches_take_layers_of_experts(reuse: str) -> None:
    model = mixed_model("full")
    ids, mask = prompts([7, 13])
    found = decode(model, ids, mask, max_new_tokens=12, seed=4, cache_reuse=reuse)
    assert found.sequences.shape == (2, 25)
    hidden = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(2)).double()
    layer = model.model.layers[1]
    whole = layer.mlp(layer.post_attention_layernorm(hidden))
    behind, some = layer.parts(None)[1], hidden[1, 2:4]
    torch.testing.assert_close(feed_forward(layer, behind, some.flip(0), some), whole[1, 2:4])


def dense_and_equal_experts() -> tuple[UniDiffForBlockDiffusion, UniDiffForBlockDiffusion]:
    """A dense model, and one whose experts are all the dense model's MLP."""
    dense = random_model(5, vocab_size=24, canvas_length=4)
    config = UniDiffConfig(**{**dense.config.to_dict(), "num_experts": 4})
    mixed = UniDiffForBlockDiffusion(config).eval()
    weights = dense.state_dict()
    for name, weight in mixed.state_dict().items():
        prefix, _, kind = name.rpartition(".")
        if kind in STACKS:
            own = weights[f"{prefix.removesuffix('.experts')}.{kind}.weight"]
            weight.copy_(own.expand_as(weight))
        elif name in weights:
            weight.copy_(weights[name])
    return dense.double(), mixed.double()


def test_equal_experts_are_a_dense_model(make_sample: Callable) -> None:
    dense, mixed = dense_and_equal_experts()
    torch.testing.assert_close(dense(IDS).logits, mixed(IDS).logits)
    batch = BlockCollator()([make_sample(*SAMPLE)])
    bounds = [model.nll(batch, exact=True).nats_B for model in (dense, mixed)]
    torch.testing.assert_close(*bounds)
    torch.testing.assert_close(dense.ar_nll(batch), mixed.ar_nll(batch))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(reentrant: bool) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = mixed_model("full").train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(IDS, labels=IDS).token_losses.sum().backward()
        gradients.append([one.grad for one in model.parameters()])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_is_the_same(dtype: torch.dtype, tmp_path: Path) -> None:
    model = mixed_model("full").float()
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    loaded = UniDiffForBlockDiffusion.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.config.to_diff_dict() == {
        **model.config.to_diff_dict(),
        "dtype": str(dtype).removeprefix("torch."),
    }
    for name, weight in model.state_dict().items():
        own = torch.float32 if name.endswith("expert_bias") else dtype
        assert torch.equal(loaded.state_dict()[name], weight.to(own)), name
    assert base_fingerprint(loaded) == base_fingerprint(model)


def parts_of_experts(model: UniDiffForBlockDiffusion) -> dict[str, Tensor]:
    mixture = model.model.layers[1].mlp
    assert isinstance(mixture, UniDiffMixture)
    return {"stack": mixture.experts.up_proj, "bias": mixture.gate.expert_bias}


@pytest.mark.parametrize("part", ["stack", "bias"])
def test_experts_and_their_biases_belong_to_the_fingerprint(part: str) -> None:
    model = mixed_model("full").float()
    before = weights_key(model.model), base_fingerprint(model)
    with torch.no_grad():
        parts_of_experts(model)[part].add_(0.5)
    assert weights_key(model.model) != before[0]
    assert base_fingerprint(model) != before[1]


def test_fresh_experts_are_as_wide_as_the_configuration_says() -> None:
    torch.manual_seed(0)
    model = UniDiffForBlockDiffusion(UniDiffConfig(**EXPERTS, initializer_range=0.05))
    mixture = model.model.layers[1].mlp
    for weight in (*mixture.experts.parameters(), mixture.gate.weight):
        assert weight.std().item() == pytest.approx(0.05, rel=0.1)
    assert not mixture.gate.expert_bias.any()
