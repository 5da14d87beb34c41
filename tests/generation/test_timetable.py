"""Known answers of the strategies whose counts follow from step and budget."""

import math

import pytest
import torch
from step_views import columns, strategy_of, view_of

from unidiff.diffusion.random import uniform
from unidiff.generation.order import DRAW_NOISE, DRAW_ORDER
from unidiff.generation.timetable import RevealCosine


def counts_of(name: str, length: int, budget: int, **options: object) -> list[int]:
    """Positions revealed in each step of one block."""
    strategy, masked, counts = strategy_of(name, **options), torch.ones(1, length).bool(), []
    while masked.any():
        view = view_of(
            torch.rand(1, length, generator=torch.Generator().manual_seed(len(counts))).tolist(),
            masked.tolist(),
            step_B=torch.tensor([len(counts)]),
            budget_B=torch.tensor([budget]),
            total_B=torch.tensor([length]),
        )
        reveal = strategy(view)
        counts.append(int(reveal.sum()))
        masked = masked & ~reveal
    return counts


def test_cosine_keeps_floor_n_cos_masked() -> None:
    masked = torch.ones(1, 64, dtype=torch.bool)
    strategy = strategy_of("cosine")
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
    strategy = strategy_of("cosine")
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


def test_ascending_doubles_and_sixty_four_take_seven_steps() -> None:
    assert counts_of("ascending", 64, 64) == [1, 2, 4, 8, 16, 32, 1]
    assert counts_of("ascending", 5, 5) == [1, 2, 2]
    assert counts_of("ascending", 64, 2) == [32, 32]  # the budget asks for more
    assert counts_of("ascending", 70, 70)[-1] == 7


def test_ascending_takes_the_most_certain() -> None:
    view = view_of([[0.1, 0.9, 0.5, 0.8]], [[True] * 4], step_B=torch.tensor([1]))
    assert columns(strategy_of("ascending")(view)) == [[1, 3]]


def test_timetable_reveals_the_share_that_its_times_say() -> None:
    expected, left = [], 64
    for step in range(16):
        now = 1 - (1 - 1e-3) * step / 16
        after = 1 - (1 - 1e-3) * (step + 1) / 16
        count = left if step == 15 else max(1, math.floor(left * (1 - after / now)))
        expected.append(count)
        left -= count
    assert counts_of("timetable", 64, 16) == expected
    assert sum(expected) == 64


def test_first_hitting_reveals_one_by_one_in_the_order_of_fixed_times() -> None:
    times = uniform(0, DRAW_ORDER, torch.arange(5), 0)
    order, masked = [], torch.ones(1, 5).bool()
    for step in range(5):
        view = view_of(
            [[0.5] * 5],
            masked.tolist(),
            step_B=torch.tensor([step]),
            total_B=torch.tensor([5]),
            seed_B=torch.tensor([0]),
        )
        reveal = strategy_of("first_hitting")(view)
        order += columns(reveal)[0]
        masked = masked & ~reveal
    assert order == times.argsort(descending=True).tolist()


def test_first_hitting_with_few_steps_is_tau_leaping() -> None:
    """Step s of S reveals what hits in its slice of time: a binomial count, 1 / S of all."""
    rows, length, budget = 4000, 8, 4
    masked = torch.ones(rows, length).bool()
    view = view_of(
        [[0.5] * length] * rows,
        masked.tolist(),
        budget_B=torch.full((rows,), budget),
        total_B=torch.full((rows,), length),
    )
    reveal = strategy_of("first_hitting")(view)
    times = uniform(torch.arange(rows)[:, None], DRAW_ORDER, torch.arange(length), 0)
    expected = times >= 1 - 1 / budget
    nothing_hit = ~expected.any(1)
    assert torch.equal(reveal[~nothing_hit], expected[~nothing_hit])
    assert (reveal[nothing_hit].sum(1) == 1).all()
    assert float(nothing_hit.float().mean()) == pytest.approx(0.75**length, abs=0.02)
