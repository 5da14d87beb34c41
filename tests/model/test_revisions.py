"""Revisions on a model: rows stay independent, pinned tokens stay, and no mask is left."""

from typing import Any

import pytest
import torch
from small_decoding import (
    CANVAS,
    PATTERNS,
    assert_rows_equal_alone,
    decode,
    prompts,
    tiny_model,
)
from torch import Tensor

from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import REMDM_SCHEDULES
from unidiff.model.modeling import UniDiffForBlockDiffusion


def distrusts_even_ids(ids_BK: Tensor, may_BK: Tensor) -> Tensor:
    """A critic that likes odd ids only."""
    return (ids_BK % 2 == 1).double()


REVISIONS: dict[str, dict[str, Any]] = {
    "secondary": {"revision": "secondary", "revision_drop": 0.05},
    "resample": {
        "revision": "resample",
        "resample_share": 0.3,
        "resample_rounds": 2,
        "unmasking_strategy": "entropy_bound",
        "entropy_bound": 5.0,
    },
    "edit": {"revision": "edit", "edit_threshold": 0.05},
    "critic": {"revision": distrusts_even_ids},
    **{
        f"remdm {kind}": {
            "unmasking_strategy": "remdm",
            "remdm_schedule": kind,
            "remdm_eta": 0.5,
            "max_denoising_steps": 8,
        }
        for kind in REMDM_SCHEDULES
    },
}


@pytest.fixture(scope="module")
def models() -> dict[str, UniDiffForBlockDiffusion]:
    return {pattern: tiny_model(pattern, trained_on_visible=True) for pattern in PATTERNS}


@pytest.mark.parametrize("name", REVISIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_batched_row_equals_the_row_alone(pattern: str, name: str, models: dict) -> None:
    own: dict[str, Any] = {"max_new_tokens": [14, 5, 9], "eos_token_id": [[-1], [9], [30, 31]]}
    together = assert_rows_equal_alone(models[pattern], [9, 3, 14], 3, REVISIONS[name], own)
    assert not (together.sequences[:, 14:] == 1).any()


@pytest.mark.parametrize("name", REVISIONS)
def test_pinned_tokens_stay(name: str, models: dict) -> None:
    ids, mask = prompts([4])
    canvas = torch.arange(10, 10 + CANVAS)[None] * 2
    pinned = torch.tensor([[True, False] * (CANVAS // 2)])
    output = decode(
        models["causal_context"], ids, mask, canvas=canvas, pinned_mask=pinned, **REVISIONS[name]
    )
    assert torch.equal(output.canvas[pinned], canvas[pinned])


@pytest.mark.parametrize("name", ["secondary", "resample", "critic", "remdm cap"])
def test_some_tokens_are_given_back(name: str, models: dict) -> None:
    ids, mask = prompts([4])
    options = {"max_new_tokens": CANVAS, "seed": 2, "return_trace": True, **REVISIONS[name]}
    options |= {
        "max_denoising_steps": 12,
        "unmasking_strategy": options.get("unmasking_strategy", "static"),
    }
    output = decode(models["causal_context"], ids, mask, **options)
    assert len(output.trace[0]) > CANVAS
    assert set(output.trace[0].index) == set(range(CANVAS))


DRAFT = torch.arange(20, 20 + CANVAS)[None]
NOTHING = torch.zeros(1, CANVAS, dtype=torch.bool)


def test_a_draft_that_is_believed_costs_one_forward(models: dict) -> None:
    ids, mask = prompts([4])
    given = {"canvas": DRAFT, "pinned_mask": NOTHING, "draft_mask": ~NOTHING}
    output = decode(
        models["causal_context"], ids, mask, **given, revision="secondary", revision_threshold=0.0
    )
    assert torch.equal(output.canvas, DRAFT)
    assert output.num_forwards.tolist() == [1]


def test_secondary_remasking_keeps_what_is_likely_enough_of_a_draft(models: dict) -> None:
    """The bound of the first of two steps, by hand: the mean of the draft's probabilities."""
    model = models["full"]
    ids, mask = prompts([4])
    with torch.no_grad():
        logits = model(torch.cat([ids, DRAFT], 1)).logits[0, 4:]
    allowed = model.config.layout.allowed_ids("text", model.config.vocab_size)
    prob = logits.double().masked_fill(~allowed, -torch.inf).softmax(-1)
    own = prob.gather(1, DRAFT.T)[:, 0]
    bound = float(own.mean())
    output = decode(
        model,
        ids,
        mask,
        canvas=DRAFT,
        pinned_mask=NOTHING,
        draft_mask=~NOTHING,
        revision="secondary",
        revision_threshold=2 * bound,
        revision_drop=1.0,
        max_denoising_steps=2,
        unmasking_strategy="static",
        return_trace=True,
        return_logprobs=True,
        temperature=1.0,
    )
    assert sorted(output.trace[0].index) == (own < bound).nonzero()[:, 0].tolist()
    assert 0 < len(output.trace[0]) < CANVAS
    assert torch.equal(output.logprobs[0] == 0, own >= bound)
    assert torch.equal(output.canvas[0][own >= bound], DRAFT[0][own >= bound])


def test_a_draft_of_one_token_has_a_step_to_be_given_back_in(models: dict) -> None:
    ids, mask = prompts([4])
    drafted = torch.arange(CANVAS)[None] == 2
    for options in ({}, {"max_denoising_steps": 2}):
        output = decode(
            models["causal_context"],
            ids,
            mask,
            canvas=DRAFT,
            pinned_mask=~drafted,
            draft_mask=drafted,
            revision="secondary",
            revision_threshold=1.0,
            revision_drop=1.0,
            return_trace=True,
            **options,
        )
        assert output.trace[0].index == [2]
        assert output.num_forwards.tolist() == [2]


@pytest.mark.parametrize("steps", [1, [1], [4, 1]])
def test_one_step_is_refused_where_a_later_one_reveals_what_is_given_back(
    steps: Any, models: dict
) -> None:
    ids, mask = prompts([4] * (len(steps) if isinstance(steps, list) else 1))
    with pytest.raises(ValueError, match="use at least 2"):
        decode(models["causal_context"], ids, mask, revision="secondary", max_denoising_steps=steps)
    session = models["causal_context"].decoding_session(revision="secondary", max_denoising_steps=4)
    request = GenerationInputs(input_ids=ids, attention_mask=mask)
    with pytest.raises(ValueError, match="use at least 2"):
        session.submit(request, max_denoising_steps=steps)
    session.submit(request, max_denoising_steps=2)


def test_rows_with_drafts_are_as_alone(models: dict) -> None:
    ids, mask = prompts([CANVAS, 3 * CANVAS, 2 * CANVAS])
    canvas = torch.cat([DRAFT, DRAFT + 7, DRAFT + 3])
    draft = torch.rand(3, CANVAS, generator=torch.Generator().manual_seed(0)) < 0.6
    pinned = ~draft & (torch.arange(CANVAS) % 5 == 0)
    options = {"revision": "secondary", "max_denoising_steps": 5, "seed": [3, 4, 5]}
    given = {"canvas": canvas, "pinned_mask": pinned, "draft_mask": draft}
    for pattern in PATTERNS:
        together = decode(models[pattern], ids, mask, **given, **options)
        assert torch.equal(together.canvas[pinned], canvas[pinned])
        assert not (together.canvas == 1).any()
        for row in range(3):
            real = mask[row].bool()
            alone = decode(
                models[pattern],
                ids[row : row + 1, real],
                mask[row : row + 1, real],
                **{name: value[row : row + 1] for name, value in given.items()},
                **options | {"seed": [options["seed"][row]]},
            )
            assert torch.equal(alone.canvas[0], together.canvas[row]), (pattern, row)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"revision": None}, ValueError, "draft_mask needs revision="),
        ({"revision": "resample"}, ValueError, "draft_mask needs revision="),
        ({"revision": distrusts_even_ids}, ValueError, "draft_mask needs revision="),
        ({"pinned_mask": NOTHING[:, 1:]}, ValueError, "pinned_mask must have shape"),
        ({"pinned_mask": NOTHING.float()}, TypeError, "pinned_mask must be bool"),
        ({"canvas": DRAFT * 0 + 1}, ValueError, "holds the mask token"),
        ({"draft_mask": DRAFT}, TypeError, "draft_mask must be bool"),
        ({"draft_mask": NOTHING[:, 1:]}, ValueError, "draft_mask must have shape"),
        ({"pinned_mask": ~NOTHING}, ValueError, "overlap"),
        ({"canvas": None, "pinned_mask": None}, ValueError, "needs the canvas"),
        ({"canvas": DRAFT * 0 + 62}, ValueError, "62"),
        ({"decoding_mode": "ar"}, ValueError, "decoding_mode='diffusion'"),
    ],
)
def test_drafts_that_cannot_be_are_refused(
    given: dict, error: type[Exception], message: str, models: dict
) -> None:
    ids, mask = prompts([4])
    request: dict[str, Any] = {
        "canvas": DRAFT,
        "pinned_mask": NOTHING,
        "draft_mask": ~NOTHING,
        "revision": "secondary",
    }
    with pytest.raises(error, match=message):
        decode(models["causal_context"], ids, mask, **request | given)


def test_nothing_is_drawn_anew_behind_an_end_token(models: dict) -> None:
    """Tokens behind the end are thrown away: no forward is spent on them."""
    ids, mask = prompts([5])
    options: dict[str, Any] = {
        "max_new_tokens": 6,
        "eos_token_id": list(range(9, 16)),
        "return_trace": True,
        "unmasking_strategy": "entropy_bound",
        "entropy_bound": 3.0,
        "max_denoising_steps": 12,
    }
    num_stopped = 0
    for seed in range(30):
        model = models["causal_context"]
        plain = decode(model, ids, mask, seed=seed, **options)
        revised = decode(
            model, ids, mask, seed=seed, **options, revision="resample", resample_share=0.3
        )
        ends = [place for place, token in enumerate(plain.sequences[0, 5:]) if 9 <= token <= 15]
        if not ends:
            continue
        num_stopped += 1
        trace = revised.trace[0]
        anew = [index for at, index in enumerate(trace.index) if index in trace.index[:at]]
        assert anew, "its least certain tokens were not drawn anew"
        assert min(anew) <= ends[0]
    assert num_stopped >= 5


def test_edits_go_on_behind_the_last_mask_and_stop(models: dict) -> None:
    ids, mask = prompts([4])
    options = {"max_new_tokens": CANVAS, "seed": 2, "max_denoising_steps": 2}
    options["unmasking_strategy"] = "static"
    plain = decode(models["causal_context"], ids, mask, **options)
    assert plain.num_forwards.tolist() == [2]
    edit = {"revision": "edit", "edit_threshold": 0.0}
    longest = decode(models["causal_context"], ids, mask, **options, **edit, max_post_edit_steps=3)
    assert 3 <= int(longest.num_forwards) <= 5
    never = decode(
        models["causal_context"], ids, mask, **options, revision="edit", edit_threshold=1.0
    )
    assert never.num_forwards.tolist() == [3]  # one pass that finds nothing to change
    assert torch.equal(never.sequences, plain.sequences)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"revision": "edit"}, "trained_on_visible=False"),
        ({"revision": "secondary"}, "trained_on_visible=False"),
        ({"revision": distrusts_even_ids, "decoding_mode": "ar"}, "decoding_mode='diffusion'"),
        ({"revision": distrusts_even_ids, "unmasking_strategy": "remdm"}, "its own revision"),
        ({"revision": "wish"}, "revision must be one of"),
    ],
)
def test_revisions_that_cannot_be_are_refused(options: dict, message: str) -> None:
    ids, mask = prompts([4])
    with pytest.raises(ValueError, match=message):
        decode(tiny_model("causal_context"), ids, mask, **options)
