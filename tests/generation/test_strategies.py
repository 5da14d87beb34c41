"""What every strategy promises, and a caller's own."""

import pytest
import torch
from step_views import columns, strategy_of, view_of

from unidiff.generation.options import UNMASKING_STRATEGIES
from unidiff.generation.strategies import STRATEGIES


def test_every_option_name_has_its_strategy() -> None:
    assert tuple(STRATEGIES) == UNMASKING_STRATEGIES


@pytest.mark.parametrize("name", ["random", "cosine", "first_hitting"])
def test_random_numbers_do_not_depend_on_the_canvas_width(name: str) -> None:
    wide = view_of([[0.5] * 6], [[True] * 4 + [False] * 2], budget_B=torch.tensor([4]))
    narrow = view_of([[0.5] * 4], [[True] * 4], budget_B=torch.tensor([4]))
    strategy = strategy_of(name, confidence_noise=1.0)
    assert columns(strategy(wide)) == columns(strategy(narrow))


@pytest.mark.parametrize("name", UNMASKING_STRATEGIES)
def test_every_strategy_progresses_and_stays_inside_the_mask(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    strategy = strategy_of(name, confidence_noise=2.0)
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
            logits_NV=torch.randn(int(masked.sum()), 5, generator=generator) * 3,
        )
        reveal = strategy(view)
        assert not (reveal & ~masked).any()
        if name != "remdm":  # a step of the process may change nothing
            assert (reveal.any(1) == masked.any(1)).all()
        masked, step = masked & ~reveal, step + 1
        assert not masked[step >= budget].any()


def test_a_callable_is_a_strategy() -> None:
    view = view_of([[0.1, 0.9]], [[True, True]])
    first = strategy_of(lambda step: step.masked_BK & (step.index_BK == 0))
    assert columns(first(view)) == [[0]]


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ([True, False], TypeError, "bool tensor"),
        (torch.ones(1, 2), TypeError, "bool tensor"),
        (torch.ones(1, 3, dtype=torch.bool), ValueError, "shape"),
        (torch.tensor([[False, True]]), ValueError, "outside"),
        (torch.tensor([[False, False]]), ValueError, "no position"),
    ],
)
def test_impossible_choices_are_refused(choice: object, error: type, message: str) -> None:
    view = view_of([[0.1, 0.9]], [[True, False]])
    with pytest.raises(error, match=message):
        strategy_of(lambda step: choice)(view)
