"""What is held of guidance's weaker branches, whatever the order of readings and ranges."""

import pytest
import torch
from torch import Tensor

from unidiff.generation.held import HeldLogits

CPU = torch.device("cpu")
BRANCHES, ROWS, WIDTH, IDS = 2, 3, 4, 10


def reading(generator: torch.Generator, num_places: int, num_ids: int) -> Tensor:
    """(C, N, V) random logits."""
    return torch.randn(BRANCHES, num_places, num_ids, generator=generator, dtype=torch.float64)


def empty(num_rows: int = ROWS) -> HeldLogits:
    held = HeldLogits(BRANCHES, CPU)
    held.join(num_rows, WIDTH)
    return held


def test_every_position_gives_its_last_reading_back() -> None:
    """Forty readings of random places and id ranges, against a dictionary."""
    generator = torch.Generator().manual_seed(2)
    held, expected = empty(), {}
    for _ in range(40):
        is_read = torch.rand(ROWS, WIDTH, generator=generator) < 0.4
        first, stop = sorted(torch.randperm(IDS + 1, generator=generator)[:2].tolist())
        row_N, column_N = torch.nonzero(is_read, as_tuple=True)
        logits = reading(generator, len(row_N), stop - first)
        held.keep(row_N, column_N, logits, first)
        for number, place in enumerate(zip(row_N.tolist(), column_N.tolist(), strict=True)):
            whole = torch.zeros(BRANCHES, IDS, dtype=torch.float64)
            whole[:, first:stop] = logits[:, number]
            expected[place] = whole
        assert held.is_held_BK.sum() == len(expected)
        for (row, column), whole in expected.items():
            place = torch.tensor([row]), torch.tensor([column])
            assert torch.equal(held.at(*place, 0, IDS)[:, 0], whole)
            assert torch.equal(held.at(*place, 3, 4)[:, 0], whole[:, 3:7])


def test_what_is_kept_is_a_copy() -> None:
    """The loop writes limits into the logits that it has handed over."""
    held, place = empty(), (torch.tensor([1]), torch.tensor([2]))
    logits = torch.ones(BRANCHES, 1, IDS)
    held.keep(*place, logits, 0)
    logits.fill_(-torch.inf)
    held.at(*place, 0, IDS).fill_(-torch.inf)
    assert (held.at(*place, 0, IDS) == 1).all()


def test_rows_join_leave_and_are_forgotten() -> None:
    held = empty()
    row_N, column_N = torch.tensor([0, 1, 2]), torch.tensor([3, 1, 0])
    logits = reading(torch.Generator().manual_seed(0), 3, IDS)
    held.keep(row_N, column_N, logits, 0)
    held.forget(1)
    assert held.is_held_BK.nonzero().tolist() == [[0, 3], [2, 0]]
    held.select([2, 0])
    held.join(1, WIDTH + 2)
    assert held.is_held_BK.shape == (3, WIDTH + 2)
    assert held.is_held_BK.nonzero().tolist() == [[0, 0], [1, 3]]
    here = held.at(torch.tensor([0, 1]), torch.tensor([0, 3]), 0, IDS)
    assert torch.equal(here, logits[:, [2, 0]])


@pytest.mark.parametrize("forgets", [True, False])
def test_older_lines_are_dropped_by_the_next_reading(forgets: bool) -> None:
    held, generator = empty(), torch.Generator().manual_seed(0)
    for _ in range(5):
        if forgets:
            held.forget(0)
        held.keep(torch.tensor([0, 0]), torch.tensor([1, 2]), reading(generator, 2, IDS), 0)
        assert held.logits_CMV.shape == (BRANCHES, 2, IDS)


def test_half_precision_stays() -> None:
    held = empty()
    for column in (0, 1):
        place = torch.tensor([0]), torch.tensor([column])
        held.keep(*place, torch.ones(BRANCHES, 1, IDS, dtype=torch.bfloat16), 0)
    assert held.at(*place, 0, IDS).dtype == torch.bfloat16
