"""Known answers of the confidence metrics."""

import math

import pytest
import torch
from torch import Tensor

from unidiff.generation import confidence
from unidiff.generation.confidence import (
    CONFIDENCES,
    SAMPLED,
    Workspace,
    entropy,
    inverse_perplexity,
    max_probability,
    probability_margin,
    sampled_probability,
)
from unidiff.generation.options import CONFIDENCE_METRICS


@pytest.fixture
def three_ids() -> Tensor:
    rows = [[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]
    return torch.tensor(rows, dtype=torch.float64).log()


def test_max_probability(three_ids: Tensor) -> None:
    assert max_probability(three_ids + 5.0).tolist() == pytest.approx([0.7, 0.5, 1 / 3])


def test_margin_is_first_less_second(three_ids: Tensor) -> None:
    assert probability_margin(three_ids - 2.0).tolist() == pytest.approx([0.5, 0.0, 0.0], abs=1e-12)
    assert probability_margin(torch.tensor([[3.0]])).tolist() == [1.0]
    banned = torch.tensor([[0.0, -torch.inf]])
    assert probability_margin(banned).tolist() == [1.0]


def test_entropy_metric_is_the_inverse_perplexity(three_ids: Tensor) -> None:
    nats = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1))
    expected = [math.exp(-nats), 0.5, 1 / 3]
    assert inverse_perplexity(three_ids).tolist() == pytest.approx(expected)
    assert inverse_perplexity(torch.tensor([[0.0, -torch.inf]])).tolist() == [1.0]
    assert entropy(three_ids).tolist()[0] == pytest.approx(nats)


def test_sampled_probability_is_that_of_the_drawn_id(three_ids: Tensor) -> None:
    drawn = torch.tensor([2, 0, 1])
    assert sampled_probability(three_ids + 3.0, drawn).tolist() == pytest.approx([0.1, 0.5, 1 / 3])


def test_every_metric_of_the_options_exists() -> None:
    assert {*CONFIDENCES, SAMPLED} == set(CONFIDENCE_METRICS)


@pytest.mark.parametrize("metric", CONFIDENCES)
def test_measures_in_parts_equal_the_whole(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    whole = CONFIDENCES[metric](logits)
    monkeypatch.setattr(confidence, "_MOST_ELEMENTS", 11)
    torch.testing.assert_close(CONFIDENCES[metric](logits), whole)


def test_half_precision_logits_are_measured_in_float32(three_ids: Tensor) -> None:
    for measure in CONFIDENCES.values():
        assert measure(three_ids.bfloat16()).dtype == torch.float32
    half = three_ids.bfloat16()
    expected = max_probability(half.double())
    torch.testing.assert_close(max_probability(half).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("metric", CONFIDENCES)
def test_a_workspace_changes_nothing(metric: str) -> None:
    workspace = Workspace()
    for rows, dtype in ((5, torch.float32), (2, torch.bfloat16), (7, torch.float64)):
        logits = torch.randn(rows, 11, generator=torch.Generator().manual_seed(rows)).to(dtype)
        measure = CONFIDENCES[metric]
        assert torch.equal(measure(logits, workspace), measure(logits))
