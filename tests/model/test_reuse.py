"""Approximate reuse under full attention: equal to none when refreshed, else what its rule says."""

from typing import Any

import pytest
import torch
from small_decoding import CANVAS, decode, prompts, responses, tiny_model
from torch import Tensor

from unidiff.generation.config import resolve_options
from unidiff.generation.denoiser import Run
from unidiff.generation.generate import generate
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import APPROXIMATE_CACHE_REUSES as KINDS
from unidiff.model.cache import BlockCache
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.placement import Placement
from unidiff.model.reuse import ReuseDenoiser, denoiser_for

MASK = 1
REFRESHED: dict[str, dict[str, Any]] = {
    "prefix": {"reuse_interval": 1},
    "dual": {"reuse_interval": 1},
    "delayed": {"reuse_interval": 1},
    "interval": {"reuse_interval": 1, "reuse_prompt_interval": 1},
    "interval all": {"reuse_share": 1.0, "reuse_prompt_interval": 1},
    "elastic": {"reuse_gamma": 1.1},
    "elastic full window": {"reuse_gamma": 1.1, "reuse_window": 99},
    "elastic interval": {"reuse_interval": 1, "reuse_gamma": -1.0},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "adaptive": {"block_delimiters": list(range(5, 30)), "delimiter_threshold": 0.01},
    "remdm": {"unmasking_strategy": "remdm", "remdm_eta": 0.5, "max_denoising_steps": 8},
    "several at once": {"unmasking_strategy": "static", "max_denoising_steps": 3},
}


@pytest.fixture(scope="module")
def model() -> UniDiffForBlockDiffusion:
    return tiny_model("full", num_attention_heads=2, num_hidden_layers=3)


def decoded(model: UniDiffForBlockDiffusion, kind: str, **options: Any) -> tuple[Any, Any]:
    """(output, statistics) of a decode through a denoiser of our own."""
    ids, mask = prompts([5])
    settings = {"cache_reuse": kind, "eos_token_id": -1, "seed": 4, "max_new_tokens": 18, **options}
    resolved = resolve_options(None, None, settings)
    denoiser = denoiser_for(model, resolved)
    assert isinstance(denoiser, ReuseDenoiser)
    inputs = GenerationInputs(input_ids=ids, attention_mask=mask)
    return generate(denoiser, resolved, inputs), denoiser.statistics.to_dict()


@pytest.mark.parametrize("name", REFRESHED)
def test_refreshing_everything_at_every_step_equals_no_reuse(
    name: str, model: UniDiffForBlockDiffusion
) -> None:
    ids, mask = prompts([9, 3, 14])
    options: dict[str, Any] = {"max_new_tokens": 15, "seed": 3}
    exact = decode(model, ids, mask, cache_reuse="none", **options)
    kind = name.split()[0]
    reused = decode(model, ids, mask, cache_reuse=kind, **REFRESHED[name], **options)
    assert torch.equal(reused.sequences, exact.sequences)
    torch.testing.assert_close(reused.logprobs, exact.logprobs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_is_refused(kind: str, model: UniDiffForBlockDiffusion) -> None:
    ids, mask = prompts([9])
    with pytest.raises(ValueError, match="guidance_scale"):
        decode(model, ids, mask, cache_reuse=kind, guidance_scale=2.0, negative_input_ids=ids)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_computes_less_and_differs(kind: str, model: UniDiffForBlockDiffusion) -> None:
    _, numbers = decoded(model, kind)
    assert numbers["share_computed"] < 0.9
    assert numbers["num_forwards"] == 18
    assert numbers["tokens_without_reuse_per_row_and_step"] == 5 + 18
    ids, mask = prompts([5])
    exact = decode(model, ids, mask, max_new_tokens=18, seed=4, cache_reuse="none")
    reused = decode(model, ids, mask, max_new_tokens=18, seed=4, cache_reuse=kind)
    assert not torch.equal(reused.logprobs, exact.logprobs)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_batched_row_equals_the_row_alone(
    kind: str, setting: str, model: UniDiffForBlockDiffusion
) -> None:
    lengths = [9, 3, 14]
    ids, mask = prompts(lengths)
    own: dict[str, Any] = {"max_new_tokens": [14, 5, 9], "eos_token_id": [[-1], [9], [30, 31]]}
    options = {"cache_reuse": kind, **SETTINGS[setting]}
    together = decode(model, ids, mask, seed=3, **options, **own)
    for row, length in enumerate(lengths):
        bare = ids[row : row + 1, ids.shape[1] - length :]
        alone = decode(
            model,
            bare,
            torch.ones_like(bare),
            seed=together.row_seeds[row],
            **options,
            **{name: values[row : row + 1] for name, values in own.items()},
        )
        assert responses(alone, length)[0] == responses(together, ids.shape[1])[row]
        assert alone.num_forwards[0] == together.num_forwards[row]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_id_in_the_prompt_and_pinned_tokens_stay(
    kind: str, model: UniDiffForBlockDiffusion
) -> None:
    canvas = torch.tensor([[20, MASK, MASK, 21, MASK, MASK, MASK, 22]])
    pinned = torch.tensor([[1, 0, 0, 1, 0, 1, 0, 1]]).bool()
    output = model.generate(
        torch.tensor([[2, MASK, 5]]),
        canvas=canvas,
        pinned_mask=pinned,
        cache_reuse=kind,
        eos_token_id=-1,
        block_length=3,
    )
    assert torch.equal(output[0, 3:][pinned[0]], canvas[pinned])
    assert not (output[0, 3:][~pinned[0]] == MASK).any()


@pytest.mark.parametrize("name", [name for name in REFRESHED if name != "elastic interval"])
def test_weights_that_predict_successors_read_one_place_to_the_left(name: str) -> None:
    shifted = tiny_model("full", logits_shift=1)
    ids, mask = prompts([4, 6])
    options: dict[str, Any] = {"max_new_tokens": 9, "seed": 3}
    exact = decode(shifted, ids, mask, cache_reuse="none", **options)
    kind = name.split()[0]
    reused = decode(shifted, ids, mask, cache_reuse=kind, **REFRESHED[name], **options)
    assert torch.equal(reused.sequences, exact.sequences)
    stale = decode(shifted, ids, mask, cache_reuse=kind, **options)
    assert not (stale.sequences[:, 6:] == MASK).any()
    denoiser = denoiser_for(shifted, resolve_options(None, None, {"cache_reuse": kind}))
    with pytest.raises(ValueError, match="needs a token before it"):
        denoiser.probe(denoiser.new_cache(1), run_over(IDS), logits_at_BK=asked_at(0))


# Canvas of the oracle: prompt of 4, an open block at 4 and 5, a closed one behind it.
IDS = torch.tensor([[7, 8, 9, 10, MASK, MASK, MASK, MASK, MASK]])
NEXT = torch.tensor([[7, 8, 9, 10, 30, MASK, MASK, MASK, MASK]])
RECOMPUTED = {
    "prefix": [4, 5, 6, 7, 8],
    "dual": [4, 5],
    "delayed": [4, 5, 6, 7, 8],
    "elastic": [4, 5],
}


def run_over(ids_BW: Tensor) -> Run:
    """A canvas at positions 0, 1, ..."""
    length = ids_BW.shape[1]
    positions = torch.arange(length).expand(3, 1, length)
    return Run(ids_BW, positions, torch.tensor([length]))


def asked_at(*columns: int) -> Tensor:
    """(1, W) bool."""
    asked = torch.zeros(IDS.shape, dtype=torch.bool)
    asked[0, list(columns)] = True
    return asked


@pytest.mark.parametrize("kind", RECOMPUTED)
def test_a_stale_step_reads_the_old_keys_of_all_others(
    kind: str, model: UniDiffForBlockDiffusion
) -> None:
    options = {"cache_reuse": kind} | ({"reuse_gamma": -1.0} if kind == "elastic" else {})
    denoiser = denoiser_for(model, resolve_options(None, None, options))
    cache = denoiser.new_cache(1)
    denoiser.probe(cache, run_over(IDS), logits_at_BK=asked_at(4, 5))
    found = denoiser.probe(cache, run_over(NEXT), logits_at_BK=asked_at(5))
    # The same by the model's own forward: old keys as a past, from which the recomputed are hidden.
    past, columns, width = BlockCache(1, 3), RECOMPUTED[kind], IDS.shape[1]
    everything = torch.ones(1, 1, width, width, dtype=torch.bool)
    positions = torch.arange(width).expand(3, 1, width)
    with torch.no_grad():
        model.model(
            input_ids=IDS,
            attention_mask=everything,
            position_ids=positions,
            past_key_values=past,
            placement=Placement.of(*map(torch.tensor, ([0], [width], [0])), (width, 0)),
        )
        past.advance([IDS[0].tolist()], [positions[:, 0].numpy()])
        mask = torch.ones(1, 1, len(columns), width + len(columns), dtype=torch.bool)
        mask[..., columns] = False
        expected = model(
            input_ids=NEXT[:, columns],
            attention_mask=mask,
            position_ids=positions[:, :, columns],
            past_key_values=past,
            placement=Placement.of(
                past.lengths_B, *map(torch.tensor, ([0], [len(columns)])), (0, len(columns))
            ),
        ).logits[0, columns.index(5)]
    torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=1e-9)


def test_a_new_block_refreshes_and_a_remasked_position_does_not(
    model: UniDiffForBlockDiffusion,
) -> None:
    denoiser = denoiser_for(model, resolve_options(None, None, {"cache_reuse": "dual"}))
    cache = denoiser.new_cache(1)
    done = torch.tensor([[7, 8, 9, 10, 30, 31, MASK, MASK, MASK]])
    probes = [(IDS, (4, 5)), (NEXT, (5,)), (IDS, (4, 5)), (done, (6, 7, 8))]
    counts = []
    for ids, columns in probes:
        before = denoiser.statistics.computed[0]
        denoiser.probe(cache, run_over(ids), logits_at_BK=asked_at(*columns))
        counts.append(denoiser.statistics.computed[0] - before)
    assert counts == [9, 2, 2, 9]


def test_without_drift_elastic_refreshes_only_at_the_first_step(
    model: UniDiffForBlockDiffusion,
) -> None:
    _, numbers = decoded(model, "elastic", reuse_gamma=-1.0)
    assert numbers["refresh_rate_per_layer"] == [1 / 18] * 3


def test_drift_refreshes_the_layers_above_it(model: UniDiffForBlockDiffusion) -> None:
    _, numbers = decoded(model, "elastic", reuse_gamma=0.999)
    first, second, third = numbers["refresh_rate_per_layer"]
    assert first == 1 / 18
    assert first < second <= third
    _, always = decoded(model, "elastic", reuse_gamma=1.0)
    assert always["refresh_rate_per_layer"][1] > second


def test_a_wider_window_recomputes_more(model: UniDiffForBlockDiffusion) -> None:
    shares = [
        decoded(model, "elastic", reuse_gamma=-1.0, reuse_window=window)[1]["share_computed"]
        for window in (1, 12, 99)
    ]
    assert shares[0] < shares[1] < shares[2]


def test_interval_recomputes_the_share_asked_for(model: UniDiffForBlockDiffusion) -> None:
    options = {"reuse_interval": 100, "reuse_prompt_interval": 100}
    _, numbers = decoded(model, "interval", reuse_share=1 / 3, **options)
    assert numbers["share_computed"] == pytest.approx((23 + 17 * 6) / (18 * 23))
    _, least = decoded(model, "interval", reuse_share=1e-9, **options)
    assert least["share_computed"] == pytest.approx((23 + 17) / (18 * 23))


class Interrupts:
    """A streamer that is interrupted at its second block."""

    num_puts = 0

    def put(self, value: Tensor) -> None:
        del value
        self.num_puts += 1
        if self.num_puts == 3:
            raise KeyboardInterrupt

    def end(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_decode_leaves_nothing_behind(
    kind: str, model: UniDiffForBlockDiffusion
) -> None:
    ids, mask = prompts([5])
    options: dict[str, Any] = {"max_new_tokens": 13, "seed": 4, "cache_reuse": kind}
    before, held = decode(model, ids, mask, **options), set(vars(model)) | set(vars(model.model))
    with pytest.raises(KeyboardInterrupt):
        decode(model, ids, mask, streamer=Interrupts(), **options)
    assert set(vars(model)) | set(vars(model.model)) == held
    assert torch.equal(decode(model, ids, mask, **options).sequences, before.sequences)


def test_rows_of_a_cache_can_be_chosen_and_widened(model: UniDiffForBlockDiffusion) -> None:
    denoiser = denoiser_for(model, resolve_options(None, None, {"cache_reuse": "dual"}))
    ids, length = IDS.repeat(2, 1), IDS.shape[1]
    ids[1, 0] = 25
    positions = torch.arange(length).expand(3, 2, length)
    both = Run(ids, positions, torch.tensor([length, length]))
    cache = denoiser.new_cache(2)
    denoiser.probe(cache, both, logits_at_BK=asked_at(4, 5).repeat(2, 1))
    alone = denoiser.new_cache(1)
    denoiser.probe(alone, run_over(ids[1:]), logits_at_BK=asked_at(4, 5))
    wide = torch.nn.functional.pad(NEXT, (0, 2))
    wide[0, 0] = 25
    padded = Run(wide, torch.arange(length + 2).expand(3, 1, -1), torch.tensor([length]))
    asked = torch.nn.functional.pad(asked_at(5), (0, 2))
    found = denoiser.probe(cache.select_rows([1]), padded, logits_at_BK=asked)
    narrow = NEXT.clone()
    narrow[0, 0] = 25
    expected = denoiser.probe(alone, run_over(narrow), logits_at_BK=asked_at(5))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_cropped_cache_begins_anew_and_keeps_nothing(model: UniDiffForBlockDiffusion) -> None:
    denoiser = denoiser_for(model, resolve_options(None, None, {"cache_reuse": "dual"}))
    cache = denoiser.new_cache(1)
    denoiser.probe(cache, run_over(IDS), logits_at_BK=asked_at(4, 5))
    with pytest.raises(ValueError, match="nothing is committed under full attention"):
        cache.crop([3])
    cache.crop([0])
    found = denoiser.probe(cache, run_over(NEXT), logits_at_BK=asked_at(5))
    fresh = denoiser.probe(denoiser.new_cache(1), run_over(NEXT), logits_at_BK=asked_at(5))
    assert torch.equal(found, fresh)
    with pytest.raises(ValueError, match="commits nothing"):
        denoiser.probe(cache, run_over(NEXT), logits_at_BK=asked_at(5), commit=run_over(IDS))


@pytest.mark.parametrize("pattern", ["causal_context", "block_causal"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_attention_patterns_have_something_better(kind: str, pattern: str) -> None:
    with pytest.raises(ValueError, match="'exact' is faster"):
        tiny_model(pattern).generate(torch.tensor([[5, 6]]), cache_reuse=kind)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reuse_gamma": 0.5}, "has no effect with cache_reuse=None"),
        ({"cache_reuse": "none", "reuse_interval": 3}, "has no effect with cache_reuse='none'"),
        ({"cache_reuse": "dual", "reuse_share": 0.5}, r"only with \['interval'\]"),
        ({"cache_reuse": "elastic", "reuse_prompt_interval": 9}, r"only with \['interval'\]"),
        ({"cache_reuse": "dual", "reuse_interval": 0}, "reuse_interval must be >= 1"),
        ({"cache_reuse": "interval", "reuse_share": 1.5}, r"reuse_share must be in \(0, 1\]"),
        ({"cache_reuse": "elastic", "reuse_window": 0}, "reuse_window must be >= 1"),
        ({"cache_reuse": "elastic", "reuse_gamma": float("nan")}, "reuse_gamma must be in"),
        ({"cache_reuse": "exact"}, "one of the approximate"),
        ({"cache_reuse": "drift"}, "cache_reuse must be one of"),
    ],
)
def test_options_without_effect_or_sense_are_errors(
    options: dict[str, Any], message: str, model: UniDiffForBlockDiffusion
) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(torch.tensor([[5, 6]]), **options)


def test_no_reuse_stays_the_default(model: UniDiffForBlockDiffusion) -> None:
    ids, mask = prompts([5])
    plain = decode(model, ids, mask, max_new_tokens=2 * CANVAS, seed=1)
    none = decode(model, ids, mask, max_new_tokens=2 * CANVAS, seed=1, cache_reuse="none")
    assert torch.equal(plain.sequences, none.sequences)
    assert torch.equal(plain.logprobs, none.logprobs)
    assert plain.past_key_values is None
