"""The speculation benchmark counts what a streamer sees, and every contestant gives ar's tokens."""

import pytest
import torch

from unidiff.bundled import bundled_checkpoint
from unidiff.evaluation.speculation_benchmark import (
    CONTESTANTS,
    DraftWatch,
    SpeculationSettings,
    heldout_prompts,
    measure_speculation,
)


def test_drafts_are_compared_up_to_the_first_wrong_place() -> None:
    watch = DraftWatch()
    for draft, tokens in (([4, 5, 6], [4, 5, 9]), ([1, 2], [7]), ([8], [8, 3])):
        watch.put_draft(torch.tensor(draft))
        for token in tokens:
            watch.put(torch.tensor([token]))
    summary = watch.summary(num_rounds=3)
    assert summary["tried_by_place"] == [3, 1, 1]
    assert summary["acceptance_by_place"] == pytest.approx([2 / 3, 1.0, 0.0], abs=1e-4)
    assert summary["draft_tokens_accepted_per_round"] == 1.0


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(bundled_checkpoint())


def test_every_contestant_says_what_ar_says(tokenizer) -> None:
    from unidiff.model.modeling import UniDiffForBlockDiffusion

    model = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
    settings = SpeculationSettings(num_prompts=1, prompt_tokens=24, new_tokens=16)
    report = measure_speculation(model.eval(), tokenizer, settings)
    assert set(report["weights"]) == {"given", "random"}
    for modes in report["weights"].values():
        assert set(modes) == set(CONTESTANTS)
        assert all(one["same_tokens_as_ar"] for one in modes.values())
        assert modes["ar"]["tokens_per_forward"] == modes["ar"]["ratio_to_ar"] == 1.0
        for one in modes.values():  # what a round accepts, and the token that it adds
            gained = one["draft_tokens_accepted_per_round"]
            assert one["tokens_per_forward"] == pytest.approx(1 + gained, abs=0.01)


def test_prompts_follow_from_the_seed_and_too_long_ones_are_refused(tokenizer) -> None:
    settings = SpeculationSettings(num_prompts=3, prompt_tokens=20)
    prompts = heldout_prompts(tokenizer, settings, first_id=2)
    assert prompts == heldout_prompts(tokenizer, settings, first_id=2)
    assert [len(prompt) for prompt in prompts] == [21] * 3
    assert {prompt[0] for prompt in prompts} == {2}
    with pytest.raises(ValueError, match="ask for fewer"):
        heldout_prompts(tokenizer, SpeculationSettings(prompt_tokens=10**7), first_id=2)
