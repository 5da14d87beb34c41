"""Known answers of the plain orders, and what every strategy promises."""

import torch
from step_views import columns, strategy_of, view_of

from unidiff.diffusion.random import uniform
from unidiff.generation.options import OPTIONS
from unidiff.generation.order import DRAW_ORDER, StepView, reveal_highest
from unidiff.generation.strategies import unmasking_strategy


def test_highest_scores_are_revealed_and_ties_go_to_the_lower_index() -> None:
    score = torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]])
    masked = torch.tensor([[True, True, True, False, True], [True] * 5])
    assert columns(reveal_highest(score, masked, torch.tensor([2, 3]))) == [[0, 1], [0, 1, 2]]
    assert columns(reveal_highest(score, masked, torch.tensor([0, 9]))) == [[], [0, 1, 2, 3, 4]]


def test_static_reveals_an_even_share_of_the_most_certain() -> None:
    confidence = [[0.1, 0.8, 0.3, 0.9, 0.7]]
    strategy = strategy_of("static")
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


def test_sequential_reveals_the_leftmost() -> None:
    view = view_of([[0.1, 0.9, 0.9, 0.9]], [[False, True, True, True]], budget_B=torch.tensor([2]))
    assert columns(strategy_of("sequential")(view)) == [[1, 2]]


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
    assert columns(strategy_of("random")(view)) == [[int(number.argmax())]]


def test_a_blocks_first_position_goes_alone_and_before_all_others() -> None:
    certain = [0.5, 0.99, 0.99, 0.1]
    strategy = strategy_of("dynamic", first_alone=True)
    opened = [[True, True, True, True], [False, True, True, True], [False, False, False, True]]
    assert columns(strategy(view_of([certain] * 3, opened))) == [[0], [1, 2], [3]]
    own = unmasking_strategy({**OPTIONS, "unmasking_strategy": reveal_last, "first_alone": True})
    assert columns(own(view_of([certain] * 2, opened[:2]))) == [[0], [3]]


def reveal_last(view: StepView) -> torch.Tensor:
    """A strategy of a caller's own."""
    reveal_BK = torch.zeros_like(view.masked_BK)
    reveal_BK[:, -1] = True
    return reveal_BK
