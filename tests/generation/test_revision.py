"""Revisions by hand, and ReMDM's law with a perfect model."""

from typing import Any

import numpy as np
import pytest
import torch

from unidiff.generation.generate import generate
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import OPTIONS, REMDM_SCHEDULES
from unidiff.generation.predictions import Opinion
from unidiff.generation.remasking import RemaskingSchedule
from unidiff.generation.revision import (
    Criticised,
    Edit,
    Resample,
    RevisionView,
    SecondaryRemask,
)


def view_of(**fields: Any) -> RevisionView:
    """Four positions of one row, the second step of four; the last is not revisable."""
    values = {
        "ids_BK": torch.tensor([[5, 6, 7, 8]]),
        "revisable_BK": torch.tensor([[True, True, True, False]]),
        "step_B": torch.tensor([1]),
        "budget_B": torch.tensor([4]),
        "confidence_BK": torch.tensor([[0.9, 0.9, 0.5, 0.9]], dtype=torch.float64),
        "opinion": None,
        "index_BK": torch.arange(4)[None],
        "seed_B": torch.tensor([3]),
        "num_returns_B": torch.tensor([0]),
        "full_BK": torch.tensor([[True, True, True, False]]),
    }
    return RevisionView(**{**values, **fields})


def test_secondary_remasking_gives_back_what_is_doubted_or_has_fallen() -> None:
    present = torch.tensor([[0.24, 0.55, 0.45, 0.0]], dtype=torch.float64)
    secondary = SecondaryRemask(threshold=0.5, drop=0.3)  # the bound is 0.25 at step two of four
    opinion = Opinion(present, torch.zeros(1, 4), present)
    revised = secondary(view_of(opinion=opinion))
    assert revised.remask_BK.tolist() == [[True, True, False, False]]
    last = view_of(opinion=opinion, step_B=torch.tensor([3]))
    assert not secondary(last).remask_BK.any()


def test_resampling_gives_the_least_certain_share_of_a_full_block_back() -> None:
    half = Resample(share=0.5)
    confidence = torch.tensor([[0.9, 0.4, 0.5, 0.1]], dtype=torch.float64)  # the last may not
    assert half(view_of(confidence_BK=confidence)).remask_BK.tolist() == [
        [False, True, True, False]
    ]
    assert Resample(share=0.4)(view_of()).remask_BK.sum() == 2  # 1.2 positions, rounded up
    wide = {name: torch.ones(1, 25, dtype=torch.bool) for name in ("revisable_BK", "full_BK")}
    wide["confidence_BK"] = torch.rand(1, 25, dtype=torch.float64)
    assert Resample(share=0.28)(view_of(**wide)).remask_BK.sum() == 7  # not 8, as floats have it
    for fields in (
        {"full_BK": torch.zeros(1, 4, dtype=torch.bool)},
        {"num_returns_B": torch.tensor([1])},  # its one round is over
        {"step_B": torch.tensor([3])},  # the budget's last step
    ):
        assert not half(view_of(**fields)).remask_BK.any()
    twice = Resample(share=0.5, rounds=2)
    assert twice(view_of(num_returns_B=torch.tensor([1]))).remask_BK.any()
    assert not twice(view_of(num_returns_B=torch.tensor([2]))).remask_BK.any()


def test_resampling_brings_tokens_drawn_together_nearer_to_the_data_law(
    table_denoiser: Any,
) -> None:
    """All three at once are drawn from their marginals; then one is drawn given the others."""
    joint = table_denoiser.joint.numpy().reshape(-1)

    def distance(num_anew: int, **options: Any) -> float:
        settings = {**OPTIONS, "do_sample": True, "max_new_tokens": 3, "seed": 7, **options}
        settings |= {"unmasking_strategy": lambda view: view.masked_BK, "max_denoising_steps": 12}
        prompts = torch.zeros(4000, 1, dtype=torch.int64)
        output = generate(table_denoiser, settings, GenerationInputs(input_ids=prompts))
        tokens = output.sequences[:, 1:].numpy()
        counts = np.bincount(tokens @ np.array([9, 3, 1]), minlength=27)
        assert set(output.num_forwards.tolist()) == {1 + num_anew}
        return float(np.abs(counts / 4000 - joint).sum() / 2)

    resample = {"revision": "resample", "resample_share": 0.3}
    assert distance(1, **resample) < 0.7 * distance(0)
    assert distance(3, **resample, resample_rounds=3) < 0.7 * distance(0)


def test_edit_rewrites_where_another_token_is_sure() -> None:
    sure = torch.tensor([[0.95, 0.99, 0.9, 0.99]], dtype=torch.float64)
    opinion = Opinion(torch.zeros(1, 4), torch.tensor([[9, 6, 9, 9]]), sure)
    revised = Edit(threshold=0.9)(view_of(opinion=opinion))
    assert revised.rewrite_BK.tolist() == [[True, False, False, False]]
    assert not revised.remask_BK.any()


def test_a_critic_gives_the_worst_back() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.9, 0.0]])
    assert Criticised(lambda ids, may: scores)(view_of()).remask_BK.tolist() == [
        [True, False, False, False]
    ]
    with pytest.raises(ValueError, match="critic must return shape"):
        Criticised(lambda ids, may: scores[:, :2])(view_of())


@pytest.mark.parametrize("kind", [k for k in REMDM_SCHEDULES if k != "confidence"])
@pytest.mark.parametrize("eta", [0.0, 0.1, 1.0])
def test_remasking_keeps_the_marginals_of_the_process(kind: str, eta: float) -> None:
    """P(visible) follows alpha: what is revealed makes up for what is masked again."""
    schedule = RemaskingSchedule(kind, eta)
    visible, budget = torch.zeros(1, dtype=torch.float64), torch.tensor([20])
    for number in range(20):
        step = torch.tensor([number])
        sigma, reveal = schedule.sigma(step, budget), schedule.reveal_prob(step, budget)
        assert 0 <= float(sigma) <= 1
        assert 0 <= float(reveal) <= 1
        visible = visible * (1 - sigma) + (1 - visible) * reveal
        expected = schedule.alpha(torch.tensor([(number + 1) / 20], dtype=torch.float64))
        torch.testing.assert_close(visible, expected, rtol=0, atol=1e-9)
    assert float(visible) == pytest.approx(1.0)


def test_without_strength_it_is_ancestral_sampling() -> None:
    schedule, budget = RemaskingSchedule("cap", 0.0), torch.tensor([5])
    for number in range(5):
        step = torch.tensor([number])
        assert float(schedule.sigma(step, budget)) == 0.0
        assert float(schedule.reveal_prob(step, budget)) == pytest.approx(1 / (5 - number))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "eta"), [("cap", 0.005), ("rescale", 0.005), ("loop", 0.05)])
def test_remdm_with_many_steps_draws_from_the_data_law(
    kind: str, eta: float, table_denoiser: Any
) -> None:
    """The strength goes with the number of steps: few tokens are revealed in the same step."""
    num_rows = 2000
    settings = {
        **OPTIONS,
        "do_sample": True,
        "max_new_tokens": 3,
        "seed": 4,
        "unmasking_strategy": "remdm",
        "remdm_schedule": kind,
        "remdm_eta": eta,
        "max_denoising_steps": 400,
        "return_trace": True,
    }
    prompts = torch.zeros(num_rows, 1, dtype=torch.int64)
    output = generate(table_denoiser, settings, GenerationInputs(input_ids=prompts))
    tokens = output.sequences[:, 1:].numpy()
    counts = np.bincount(tokens @ np.array([9, 3, 1]), minlength=27)
    joint = table_denoiser.joint.numpy().reshape(-1)
    floor = np.sqrt(2 * joint * (1 - joint) / (np.pi * num_rows)).sum() / 2
    assert np.abs(counts / num_rows - joint).sum() / 2 < 1.7 * floor
    reveals = np.array([len(trace) for trace in output.trace])
    assert reveals.min() == 3
    assert reveals.mean() > 3.03  # tokens were given back and revealed anew
