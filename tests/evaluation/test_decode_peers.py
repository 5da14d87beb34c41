"""The peers do the same work: same weights, same tokens where they must be the same, same size."""

from dataclasses import replace

import pytest
import torch

from unidiff.evaluation.decode_contestants import build_contestants
from unidiff.evaluation.decode_peers import (
    active_parameters,
    count_forwards,
    denoise_without_cache,
    equal_gemma,
    qwen3_twin,
)
from unidiff.evaluation.decode_setup import MASK_ID, DecodeSetup, build_model, build_prompts
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion

SETUP = DecodeSetup.preset("tiny")


@pytest.fixture(scope="module")
def model():
    """Weights far enough apart that the tokens vary and none tie."""
    found = build_model(SETUP)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return found


@pytest.fixture(scope="module")
def prompt():
    return build_prompts(SETUP.shape.vocab_size, 2, SETUP.prompt_tokens, seed=3)


def test_our_ar_tokens_equal_transformers_generate(model, prompt):
    options = {"do_sample": False, "max_new_tokens": 24}
    ours = model.generate(prompt, decoding_mode="ar", eos_token_id=-1, **options)
    # Ours never emits the mask id.
    theirs = qwen3_twin(model).generate(
        prompt, attention_mask=torch.ones_like(prompt), suppress_tokens=[MASK_ID], **options
    )
    assert torch.equal(ours, theirs)
    assert len(set(ours[0, SETUP.prompt_tokens :].tolist())) > 8


@pytest.mark.parametrize(("new_tokens", "block_length", "steps"), [(16, 8, 4), (13, 8, 3)])
def test_the_uncached_loop_equals_our_full_pattern_without_reuse(
    model, prompt, new_tokens, block_length, steps
):
    full = UniDiffForBlockDiffusion(
        UniDiffConfig(**{**model.config.to_dict(), "attention_pattern": "full"})
    ).eval()
    full.load_state_dict(model.state_dict())
    ours = full.generate(
        prompt,
        max_new_tokens=new_tokens,
        block_length=block_length,
        unmasking_strategy="static",
        max_denoising_steps=steps,
        do_sample=False,
        eos_token_id=-1,
        cache_reuse="none",
    )
    twin = qwen3_twin(model, is_causal=False)
    theirs = denoise_without_cache(twin, prompt, new_tokens, block_length, steps)
    assert torch.equal(ours, theirs)
    assert len(set(theirs[0, SETUP.prompt_tokens :].tolist())) > 2


def test_the_uncached_loop_makes_one_forward_for_each_step(model, prompt):
    twin = qwen3_twin(model, is_causal=False)
    assert count_forwards([twin], lambda: denoise_without_cache(twin, prompt, 16, 8, 4)) == 8


def test_a_twin_that_is_not_causal_sees_what_comes_later(model, prompt):
    changed = prompt.clone()
    changed[:, -1] = 4 + (changed[:, -1] - 3) % 100
    for is_causal in (True, False):
        twin = qwen3_twin(model, is_causal)
        with torch.no_grad():
            first, second = (twin(input_ids=ids).logits[:, 0] for ids in (prompt, changed))
        assert torch.equal(first, second) == is_causal


def test_the_gemma_has_as_many_active_parameters():
    setup = replace(SETUP, shape=replace(SETUP.shape, hidden_size=256, intermediate_size=640))
    ours = sum(parameter.numel() for parameter in build_model(setup).parameters())
    assert active_parameters(equal_gemma(setup)) == pytest.approx(ours, rel=0.03)


def test_the_contestants_say_how_many_forwards_they_make():
    names = ["unidiff_s4", "unidiff_separate_s4", "unidiff_ar", "transformers_ar"]
    names += ["uncached_s4", "diffusion_gemma_b4"]
    found = {c.name: c for c in build_contestants(SETUP, names)}
    counts = {n: c.run().num_forwards or c.num_forwards for n, c in found.items()}
    assert counts == {
        "unidiff_s4": 8,  # two blocks of four steps; the first block's commit rides along
        "unidiff_separate_s4": 9,
        "unidiff_ar": 16,
        "transformers_ar": 16,
        "uncached_s4": 8,
        "diffusion_gemma_b4": 10,  # two of the encoder, eight of the decoder
    }
    assert found["diffusion_gemma_b4"].run().ids_BT.shape == (4, 28)
