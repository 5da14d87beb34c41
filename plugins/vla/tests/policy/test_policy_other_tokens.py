"""pytest plugins/vla/tests/policy: chunks of other tokens than bins, on untrained weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.dct import DctTokenizer
from unidiff.tokens.fast import FastTokenizer
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.prompts import layout_for_tokenizer

CHUNKS = np.random.default_rng(0).uniform(-1, 1, (40, 8, 2))
TOKENIZERS = {
    "bins": BinTokenizer.fit(CHUNKS, 64, horizon=8),
    "all frequencies": DctTokenizer.fit(CHUNKS, 65),
    "three frequencies": DctTokenizer.fit(CHUNKS, 65, num_frequencies=3),
    "short FAST": FastTokenizer.fit(CHUNKS, length=12),
    "long FAST": FastTokenizer.fit(CHUNKS, length=24),
}
OTHERS = [name for name in TOKENIZERS if name != "bins"]
AR = {"decoding_mode": "ar", "do_sample": False}


@pytest.fixture(scope="module")
def policy_of(parts):
    """A policy of untrained weights whose actions are tokens of that name."""

    def policy(name, **settings):
        base, bins = parts[1], TOKENIZERS[name]
        sizes = {"image": 240, "action": bins.num_codes, "state": base.state_bins.num_bins}
        layout = layout_for_tokenizer(base.tokenizer, sizes, base.layout.image_grid, bins.grid)
        processor = UniDiffProcessor(
            image_processor=base.image_processor,
            tokenizer=base.tokenizer,
            token_layout=layout,
            action_bins=bins,
            state_bins=base.state_bins,
            image_model=base.image_tokenizer,
        )
        config = UniDiffConfig(
            vocab_size=-(-layout.num_ids // 64) * 64,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=64,
            max_position_embeddings=1024,
            token_layout=layout.to_dict(),
            mask_token_id=layout.mask_token_id,
            pad_token_id=layout.pad_token_id,
            bos_token_id=2,
            eos_token_id=layout.end_token_ids[0],
        )
        torch.manual_seed(0)
        model = UniDiffForBlockDiffusion(config).eval()
        return MaskedDiffusionPolicy(model, processor, PolicySettings(**settings))

    return policy


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("decoding", [{"max_denoising_steps": 4}, AR], ids=["masked", "ar"])
def test_any_action_tokens_plan_chunks_inside_the_range(policy_of, observations, name, decoding):
    policy = policy_of(name, decoding=decoding, replan_every=4)
    bins = policy.bins
    chunks = policy.predict_action_chunk(observations[:2])
    record = policy.last_record
    assert chunks.shape == (2, 8, 2)
    assert np.isfinite(chunks).all()
    assert (chunks >= np.float32(bins.low)).all()
    assert (chunks <= np.float32(bins.high)).all()
    assert record.confidence.shape == (2, *bins.grid)
    assert sorted(record.traces[0].index) == list(range(bins.num_tokens))
    assert record.num_forwards[0] == (4 if "max_denoising_steps" in decoding else bins.num_tokens)
    actions = [policy.select_action(observations[0]) for _ in range(9)]
    assert np.shape(actions) == (9, 2)
    assert policy.num_plans == 3


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"replan_every": 4, "inference_delay": 2}, "inference_delay pins"),
        ({"replan_every": 4, "warm_start": 0.5}, "warm_start pins"),
        (
            {"replan_every": 4, "inference_delay": 1, "warm_start": 0.5},
            "inference_delay and warm_start pins",
        ),
    ],
)
def test_only_bins_can_be_pinned(policy_of, name, settings, words):
    policy_of("bins", **settings)
    with pytest.raises(ValueError, match=f"{words} .* only bins can be pinned: .* leave it out"):
        policy_of(name, **settings)


@pytest.mark.parametrize("name", OTHERS)
def test_a_leftover_of_other_tokens_is_neither_pinned_nor_drafted(policy_of, observations, name):
    policy = policy_of(name)
    left = policy.predict_action_chunk(observations[0])[0, 4:]
    again = policy.predict_action_chunk(observations[0], leftover=left)
    assert np.array_equal(again[0, 4:], left)  # nothing is asked of it
    with pytest.raises(ValueError, match=r"inference_delay pins .* only bins can be pinned"):
        policy.predict_action_chunk(observations[0], leftover=left, inference_delay=2)
    with pytest.raises(ValueError, match=r"a draft pins .* only bins can be pinned"):
        policy.predict_action_chunk(observations[0], leftover=left, is_draft=True)


def test_a_policy_without_the_range_of_its_states_is_refused(parts):
    class Stateless:
        """The processor of a folder whose `state_bins` were deleted."""

        state_bins = None

        def __getattr__(self, name):
            return getattr(parts[1], name)

    processor = Stateless()
    with pytest.raises(ValueError, match=r"state are missing from processor_config\.json"):
        MaskedDiffusionPolicy(parts[0], processor)
    ranges = {name: ids for name, ids in parts[1].layout.ranges.items() if name != "state"}
    processor.layout = replace(parts[1].layout, ranges=ranges)
    MaskedDiffusionPolicy(parts[0], processor)  # one that reads none
