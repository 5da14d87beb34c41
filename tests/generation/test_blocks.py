"""Where adaptive blocks end."""

import torch

from unidiff.generation.blocks import Blocks

DOT, COMMA = 3, 4


def lengths(blocks: Blocks, *rows: list[tuple[int, float]]) -> list[int]:
    """Lengths for rows of (likeliest id, its probability)."""
    logits, row_N, place_N = [], [], []
    for row, places in enumerate(rows):
        for place, (token, prob) in enumerate(places):
            line = torch.full((6,), (1 - prob) / 5, dtype=torch.float64)
            line[token] = prob
            logits.append(line.log())
            row_N.append(row)
            place_N.append(place)
    return blocks.lengths(
        torch.stack(logits), torch.tensor(row_N), torch.tensor(place_N), 0, len(rows)
    ).tolist()


def test_a_block_ends_at_its_most_certain_delimiter() -> None:
    blocks = Blocks(4, delimiters=(DOT, COMMA))
    word = (0, 0.9)
    assert lengths(
        blocks,
        [word, (DOT, 0.5), (COMMA, 0.7), word],
        [word, (DOT, 0.29), word, word],
        [(DOT, 0.6), word, (DOT, 0.6), word],
    ) == [3, 4, 1]


def test_a_window_may_look_behind_the_block() -> None:
    word = (0, 0.9)
    places = [word, word, word, (DOT, 0.8), word]
    assert lengths(Blocks(2, delimiters=(DOT,), lookahead=5), places) == [4]
    assert lengths(Blocks(2, delimiters=(DOT,), lookahead=3), places) == [2]


def test_the_first_id_shifts_the_columns() -> None:
    logits = torch.tensor([[0.0, 9.0]])
    place = torch.tensor([0])
    blocks = Blocks(2, delimiters=(11,))
    assert blocks.lengths(logits, place, place, 10, 1).tolist() == [1]
    assert blocks.lengths(logits, place, place, 0, 1).tolist() == [2]
