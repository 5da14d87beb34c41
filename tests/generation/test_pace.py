"""Known answers of the strategies that let certainty decide, and brute force over every count."""

import itertools
from dataclasses import replace

import pytest
import torch
from step_views import columns, strategy_of, view_of
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
)

from unidiff.generation.order import StepView


def test_threshold_reveals_all_that_are_certain_else_the_best() -> None:
    confidence = [[0.95, 0.2, 0.9, 0.89], [0.1, 0.3, 0.2, 0.3]]
    reveal = strategy_of("threshold")(view_of(confidence, [[True] * 4] * 2))
    assert columns(reveal) == [[0, 2], [1]]
    own = view_of(
        confidence, [[True] * 4] * 2, threshold_B=torch.tensor([0.96, 0.15], dtype=torch.float64)
    )
    assert columns(strategy_of("threshold")(own)) == [[0], [1, 2, 3]]


def test_threshold_never_falls_behind_its_budget() -> None:
    view = view_of([[0.1, 0.2, 0.3, 0.4]], [[True] * 4], budget_B=torch.tensor([2]))
    assert columns(strategy_of("threshold")(view)) == [[2, 3]]


def test_dynamic_is_strict_and_takes_its_share_where_few_are_certain() -> None:
    confidence = [[0.9, 0.95, 0.2, 0.1]]
    assert columns(strategy_of("dynamic")(view_of(confidence, [[True] * 4]))) == [[1]]
    share = view_of(confidence, [[True] * 4], budget_B=torch.tensor([2]))
    assert columns(strategy_of("dynamic")(share)) == [[0, 1]]
    certain = view_of([[0.99] * 4], [[True] * 4], budget_B=torch.tensor([2]))
    assert columns(strategy_of("dynamic")(certain)) == [[0, 1, 2, 3]]


def test_relative_threshold_also_takes_the_equals_of_the_best() -> None:
    view = view_of([[0.5, 0.5, 0.4], [0.95, 0.9, 0.4]], [[True] * 3] * 2)
    assert columns(strategy_of("relative_threshold")(view)) == [[0, 1], [0, 1]]
    assert columns(strategy_of("threshold")(view)) == [[0], [0, 1]]


def random_confidences(count: int) -> torch.Tensor:
    """Rows of six confidences, many of them high."""
    generator = torch.Generator().manual_seed(3)
    return 1 - torch.rand(count, 6, generator=generator, dtype=torch.float64) ** 3 * 0.6


@pytest.mark.parametrize("factor", [0.3, 0.75, 1.0])
def test_factor_takes_the_largest_count_that_the_rule_allows(factor: float) -> None:
    confidence = random_confidences(200)
    reveal = strategy_of("factor", factor=factor)(view_of(confidence.tolist(), [[True] * 6] * 200))
    for row, chosen in zip(confidence, reveal, strict=True):
        falling = sorted(row.tolist(), reverse=True)
        allowed = [n for n in range(1, 7) if falling[n - 1] >= 1 - factor / (n + 1)]
        count = max(allowed, default=1)
        assert int(chosen.sum()) == count
        assert sorted(row[chosen].tolist(), reverse=True) == falling[:count]


@pytest.mark.parametrize("margin", [0.0, 0.25, 0.6])
def test_frechet_takes_the_largest_count_that_the_bounds_allow(margin: float) -> None:
    confidence = random_confidences(200)
    strategy = strategy_of("frechet", frechet_margin=margin)
    reveal = strategy(view_of(confidence.tolist(), [[True] * 6] * 200))
    for row, chosen in zip(confidence, reveal, strict=True):
        falling = sorted(row.tolist(), reverse=True)
        allowed = [
            n
            for n in range(1, 7)
            if max(0.0, sum(falling[:n]) - (n - 1)) - (1 - falling[n - 1]) > margin
        ]
        assert int(chosen.sum()) == max(allowed, default=1)


def test_frechet_is_the_factor_rule_for_equal_confidences() -> None:
    for certainty in (0.71, 0.83, 0.9, 0.951, 0.99):
        view = view_of([[certainty] * 12], [[True] * 12])
        for margin in (0.1, 0.25, 0.5):
            frechet = strategy_of("frechet", frechet_margin=margin)(view)
            assert torch.equal(frechet, strategy_of("factor", factor=1 - margin)(view))


def largest_that_fits(entropies: list[float], bound: float) -> int:
    """Positions of the largest set whose entropies without the largest fit, at least one."""
    sizes = range(1, len(entropies) + 1)
    sums = {
        size: min(sum(part) - max(part) for part in itertools.combinations(entropies, size))
        for size in sizes
    }
    return max(size for size in sizes if sums[size] <= bound + 1e-12)


@pytest.mark.parametrize("bound", [0.0, 0.1, 0.7, 3.0])
def test_entropy_bound_takes_the_largest_set_that_fits(bound: float) -> None:
    logits = torch.randn(40, 6, 5, generator=torch.Generator().manual_seed(1)).double() * 4
    view = view_of([[0.5] * 6] * 40, [[True] * 6] * 40, logits_NV=logits.flatten(0, 1))
    reveal = strategy_of("entropy_bound", entropy_bound=bound)(view)
    for row, chosen in zip(logits, reveal, strict=True):
        entropies = torch.distributions.Categorical(logits=row).entropy().tolist()
        best = largest_that_fits(entropies, bound)
        assert int(chosen.sum()) == best
        assert sorted(entropies)[:best] == pytest.approx(
            sorted(e for e, is_chosen in zip(entropies, chosen, strict=True) if is_chosen)
        )


@pytest.mark.parametrize(("bound", "final"), [(0.2, 3.0), (3.0, 0.2), (0.0, 1.0)])
def test_a_final_entropy_bound_is_approached_by_the_share_revealed(
    bound: float, final: float
) -> None:
    """Blocks of 12 in all stages, a few positions of which are open, then brute force."""
    generator = torch.Generator().manual_seed(4)
    num_open = torch.randint(1, 7, (60,), generator=generator)
    masked = torch.arange(6) < num_open[:, None]
    total = num_open + torch.randint(0, 7, (60,), generator=generator)
    logits = torch.randn(int(num_open.sum()), 5, generator=generator).double() * 3
    view = view_of(
        [[0.5] * 6] * 60,
        masked.tolist(),
        logits_NV=logits,
        total_B=total,
        budget_B=torch.full((60,), 12),
    )
    reveal = strategy_of("entropy_bound", entropy_bound=bound, final_entropy_bound=final)(view)
    entropies = torch.distributions.Categorical(logits=logits).entropy().split(num_open.tolist())
    for own, of_all, chosen in zip(entropies, total.tolist(), reveal, strict=True):
        now = bound + (final - bound) * (1 - len(own) / of_all)
        assert int(chosen.sum()) == largest_that_fits(own.tolist(), now)


def test_a_final_entropy_bound_of_the_same_height_changes_nothing() -> None:
    logits = torch.randn(240, 5, generator=torch.Generator().manual_seed(1)).double() * 4
    view = view_of(
        [[0.5] * 6] * 40, [[True] * 6] * 40, logits_NV=logits, total_B=torch.full((40,), 9)
    )
    constant = strategy_of("entropy_bound", entropy_bound=0.7)(view)
    same = strategy_of("entropy_bound", entropy_bound=0.7, final_entropy_bound=0.7)(view)
    assert torch.equal(constant, same)


def grid_view(rows: int, seed: int) -> StepView:
    """Pictures of 3 x 4 positions, some of them known."""
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(rows, 12, generator=generator) < 0.7
    masked[:, 0] = True
    place = torch.stack([torch.full((12,), 7), torch.arange(12) // 4, torch.arange(12) % 4])
    logits = torch.randn(int(masked.sum()), 5, generator=generator).double() * 3
    confidence = [[0.5] * 12] * rows
    position = place.expand(rows, 3, 12)
    return view_of(confidence, masked.tolist(), logits_NV=logits, position_B3K=position)


@pytest.mark.parametrize(("local", "reach"), [(0.3, 1), (0.0, 1), (1.5, 2), (0.8, 0)])
def test_a_local_entropy_bound_counts_near_positions_only(local: float, reach: int) -> None:
    view = grid_view(40, seed=6)
    options = {"entropy_bound": 2.5, "local_entropy_bound": local, "local_reach": reach}
    reveal = strategy_of("entropy_bound", **options)(view)
    alone = strategy_of("entropy_bound", entropy_bound=2.5)(view)
    num_held = 0
    for row in range(40):
        open_ones = torch.nonzero(view.masked_BK[row])[:, 0].tolist()
        order = sorted(open_ones, key=lambda k: (float(view.entropies[row, k]), k))
        for rank, k in enumerate(order):
            near = [
                float(view.entropies[row, j])
                for j in order[:rank]
                if max(abs(j // 4 - k // 4), abs(j % 4 - k % 4)) <= reach
            ]
            wanted = bool(alone[row, k]) and sum(near) <= local
            num_held += bool(alone[row, k]) and not wanted
            assert bool(reveal[row, k]) == wanted
    assert (num_held > 0) == (reach > 0)


def test_a_local_entropy_bound_moves_by_the_share_revealed() -> None:
    view = grid_view(40, seed=8)
    view = replace(view, total_B=torch.full((40,), 12))
    moving = strategy_of(
        "entropy_bound",
        entropy_bound=2.5,
        local_entropy_bound=0.2,
        final_local_entropy_bound=2.0,
        local_reach=1,
    )(view)
    sizes = set()
    for row, num_open in enumerate(view.num_remaining.tolist()):
        now = 0.2 + 1.8 * (1 - num_open / 12)
        fixed = strategy_of(
            "entropy_bound", entropy_bound=2.5, local_entropy_bound=now, local_reach=1
        )(view)
        assert torch.equal(moving[row], fixed[row])
        sizes.add(num_open)
    assert len(sizes) > 3


def test_a_local_entropy_bound_that_reaches_everywhere_is_the_entropy_bound() -> None:
    view = grid_view(40, seed=7)
    everywhere: dict = {"entropy_bound": 100.0, "local_entropy_bound": 0.9, "local_reach": 3}
    one = strategy_of("entropy_bound", entropy_bound=0.9)(view)
    assert torch.equal(strategy_of("entropy_bound", **everywhere)(view), one)


@pytest.mark.parametrize("bound", [0.05, 0.5, 2.0])
def test_entropy_bound_accepts_what_transformers_sampler_accepts(bound: float) -> None:
    logits = torch.randn(30, 8, 6, generator=torch.Generator().manual_seed(2)) * 4
    theirs = EntropyBoundSampler(EntropyBoundSamplerConfig(bound), 8, 6, 8)
    current, new = torch.zeros(30, 8, dtype=torch.int64), torch.ones(30, 8, dtype=torch.int64)
    accepted = theirs.accept_canvas(current, new, logits, 0) == 1
    view = view_of([[0.5] * 8] * 30, [[True] * 8] * 30, logits_NV=logits.flatten(0, 1))
    assert torch.equal(strategy_of("entropy_bound", entropy_bound=bound)(view), accepted)


def test_hierarchy_takes_the_best_of_each_run() -> None:
    confidence = [[0.5, 0.6, 0.99, 0.3, 0.2, 0.7, 0.45]]
    masked = [[True, True, False, True, True, False, True]]
    assert columns(strategy_of("hierarchy")(view_of(confidence, masked))) == [[1, 6]]
    low = strategy_of("hierarchy", hierarchy_threshold=0.2)
    assert columns(low(view_of(confidence, masked))) == [[1, 3, 6]]
    certain = view_of([[0.95, 0.92, 0.1]], [[True] * 3])
    assert columns(strategy_of("hierarchy")(certain)) == [[0, 1]]
    doubtful = view_of([[0.1, 0.3, 0.2]], [[True] * 3])
    assert columns(strategy_of("hierarchy")(doubtful)) == [[1]]
