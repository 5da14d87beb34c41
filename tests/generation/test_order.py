"""Known answers of the confidence metrics and of every unmasking strategy."""

import math

import pytest
import torch
from torch import Tensor

from unidiff.diffusion.random import uniform
from unidiff.generation.options import CONFIDENCE_METRICS, UNMASKING_STRATEGIES
from unidiff.generation.order import (
    CONFIDENCES,
    DRAW_NOISE,
    DRAW_ORDER,
    RevealCosine,
    StepView,
    inverse_perplexity,
    max_probability,
    probability_margin,
    reveal_highest,
    unmasking_strategy,
)


def view_of(confidence: list, masked: list, **changes: object) -> StepView:
    """A step of one or more rows, on the first of as many steps as there are positions."""
    confidence_BK = torch.tensor(confidence, dtype=torch.float64)
    masked_BK = torch.tensor(masked, dtype=torch.bool)
    rows, width = masked_BK.shape
    fields = {
        "confidence_BK": confidence_BK,
        "masked_BK": masked_BK,
        "step_B": torch.zeros(rows, dtype=torch.int64),
        "budget_B": torch.full((rows,), width),
        "total_B": masked_BK.sum(1),
        "threshold_B": torch.full((rows,), 0.9, dtype=torch.float64),
        "index_BK": torch.arange(width).expand(rows, width),
        "seed_B": torch.arange(rows),
    }
    return StepView(**{**fields, **changes})


def columns(reveal_BK: Tensor) -> list[list[int]]:
    """Revealed columns of each row."""
    return [torch.nonzero(row)[:, 0].tolist() for row in reveal_BK]


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
    entropy = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1))
    expected = [math.exp(-entropy), 0.5, 1 / 3]
    assert inverse_perplexity(three_ids).tolist() == pytest.approx(expected)
    assert inverse_perplexity(torch.tensor([[0.0, -torch.inf]])).tolist() == [1.0]


def test_every_option_name_has_its_function() -> None:
    assert set(CONFIDENCES) == set(CONFIDENCE_METRICS)
    for name in UNMASKING_STRATEGIES:
        assert callable(unmasking_strategy(name))


def test_highest_scores_are_revealed_and_ties_go_to_the_lower_index() -> None:
    score = torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]])
    masked = torch.tensor([[True, True, True, False, True], [True] * 5])
    assert columns(reveal_highest(score, masked, torch.tensor([2, 3]))) == [[0, 1], [0, 1, 2]]
    assert columns(reveal_highest(score, masked, torch.tensor([0, 9]))) == [[], [0, 1, 2, 3, 4]]


def test_static_reveals_an_even_share_of_the_most_certain() -> None:
    confidence = [[0.1, 0.8, 0.3, 0.9, 0.7]]
    strategy = unmasking_strategy("static")
    reveal = strategy(view_of(confidence, [[True] * 5], budget_B=torch.tensor([2])))
    assert columns(reveal) == [[1, 3, 4]]  # ceil(5 / 2)
    last = view_of(
        confidence,
        [[True, False, True, False, False]],
        budget_B=torch.tensor([2]),
        step_B=torch.tensor([1]),
    )
    assert columns(strategy(last)) == [[0, 2]]
    late = view_of(confidence, [[True] * 5], budget_B=torch.tensor([2]), step_B=torch.tensor([7]))
    assert columns(strategy(late)) == [[0, 1, 2, 3, 4]]


def test_threshold_reveals_all_that_are_certain_else_the_best() -> None:
    confidence = [[0.95, 0.2, 0.9, 0.89], [0.1, 0.3, 0.2, 0.3]]
    reveal = unmasking_strategy("threshold")(view_of(confidence, [[True] * 4] * 2))
    assert columns(reveal) == [[0, 2], [1]]
    own = view_of(
        confidence, [[True] * 4] * 2, threshold_B=torch.tensor([0.96, 0.15], dtype=torch.float64)
    )
    assert columns(unmasking_strategy("threshold")(own)) == [[0], [1, 2, 3]]


def test_threshold_never_falls_behind_its_budget() -> None:
    view = view_of([[0.1, 0.2, 0.3, 0.4]], [[True] * 4], budget_B=torch.tensor([2]))
    assert columns(unmasking_strategy("threshold")(view)) == [[2, 3]]


def test_sequential_reveals_the_leftmost() -> None:
    view = view_of([[0.1, 0.9, 0.9, 0.9]], [[False, True, True, True]], budget_B=torch.tensor([2]))
    assert columns(unmasking_strategy("sequential")(view)) == [[1, 2]]


def test_random_follows_its_counters() -> None:
    index = torch.arange(10, 14)[None]
    view = view_of(
        [[0.9, 0.1, 0.1, 0.1]],
        [[True, True, False, True]],
        index_BK=index,
        seed_B=torch.tensor([77]),
        step_B=torch.tensor([2]),
        budget_B=torch.tensor([5]),
    )
    number = uniform(77, DRAW_ORDER, index, 2).masked_fill(~view.masked_BK, -1.0)
    assert columns(unmasking_strategy("random")(view)) == [[int(number.argmax())]]


@pytest.mark.parametrize("name", ["random", "cosine"])
def test_random_numbers_do_not_depend_on_the_canvas_width(name: str) -> None:
    wide = view_of([[0.5] * 6], [[True] * 4 + [False] * 2], budget_B=torch.tensor([4]))
    narrow = view_of([[0.5] * 4], [[True] * 4], budget_B=torch.tensor([4]))
    strategy = unmasking_strategy(name, confidence_noise=1.0)
    assert columns(strategy(wide)) == columns(strategy(narrow))


def test_cosine_keeps_floor_n_cos_masked() -> None:
    masked = torch.ones(1, 64, dtype=torch.bool)
    strategy = unmasking_strategy("cosine")
    stays = []
    for step in range(8):
        view = view_of(
            [[0.5] * 64],
            masked.tolist(),
            step_B=torch.tensor([step]),
            budget_B=torch.tensor([8]),
            total_B=torch.tensor([64]),
        )
        masked = masked & ~strategy(view)
        stays.append(int(masked.sum()))
    assert stays == [math.floor(64 * math.cos(math.pi / 2 * s / 8)) for s in range(1, 8)] + [0]


def test_cosine_reveals_at_least_one_and_in_the_end_all() -> None:
    strategy = unmasking_strategy("cosine")
    slow = view_of([[0.2, 0.9, 0.1]], [[True] * 3], budget_B=torch.tensor([100]))
    assert columns(strategy(slow)) == [[1]]
    over = view_of(
        [[0.2, 0.9, 0.1]], [[True] * 3], budget_B=torch.tensor([3]), step_B=torch.tensor([9])
    )
    assert columns(strategy(over)) == [[0, 1, 2]]


def test_cosine_noise_shrinks_to_nothing_at_the_last_step() -> None:
    confidence = [[0.30, 0.31, 0.29, 0.28]]
    seeds = torch.arange(200)
    shape = {"seed_B": seeds, "budget_B": torch.full((200,), 8), "total_B": torch.full((200,), 4)}
    first = view_of(confidence * 200, [[True] * 4] * 200, **shape)
    chosen = RevealCosine(noise=5.0)(first).float().mean(0)
    assert chosen.min() > 0.15  # the noise decides
    gumbel = -torch.log(-torch.log(uniform(seeds[:, None], DRAW_NOISE, first.index_BK, 0)))
    score = first.confidence_BK.log() + 5.0 * (1 - 1 / 8) * gumbel
    assert torch.equal(RevealCosine(noise=5.0)(first).int().argmax(1), score.argmax(1))


@pytest.mark.parametrize("name", UNMASKING_STRATEGIES)
def test_every_strategy_progresses_and_stays_inside_the_mask(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    strategy = unmasking_strategy(name, confidence_noise=2.0)
    masked = torch.rand(50, 9, generator=generator) < 0.6
    masked[:, 0] = True
    budget = torch.randint(1, 12, (50,), generator=generator)
    total, step = masked.sum(1), torch.zeros(50, dtype=torch.int64)
    while masked.any():
        confidence = torch.rand(50, 9, generator=generator)
        view = view_of(
            confidence.tolist(),
            masked.tolist(),
            step_B=step,
            budget_B=budget,
            total_B=total,
            seed_B=torch.arange(50),
        )
        reveal = strategy(view)
        assert not (reveal & ~masked).any()
        assert (reveal.any(1) == masked.any(1)).all()
        masked, step = masked & ~reveal, step + 1
        assert not masked[step >= budget].any()


def test_cosine_noise_has_almost_gone_one_step_before_the_last() -> None:
    """At full strength the noise would decide here; at an eighth the confidence does."""
    rows = 400
    view = view_of(
        [[0.1, 0.2, 0.3, 0.5]] * rows,
        [[True] * 4] * rows,
        seed_B=torch.arange(rows),
        step_B=torch.full((rows,), 6),
        budget_B=torch.full((rows,), 8),
        total_B=torch.full((rows,), 64),  # most of the block is known: one position goes at a time
    )
    chosen = RevealCosine(noise=1.0)(view)
    assert (chosen.sum(1) == 1).all()
    gumbel = -torch.log(-torch.log(uniform(view.seed_B[:, None], DRAW_NOISE, view.index_BK, 6)))
    score = view.confidence_BK.log() + (1 - 7 / 8) * gumbel
    assert torch.equal(chosen.int().argmax(1), score.argmax(1))
    assert chosen[:, 3].float().mean() > 0.9
    assert (view.confidence_BK.log() + gumbel).argmax(1).eq(3).float().mean() < 0.7
