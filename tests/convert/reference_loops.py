"""The published sampling loops at temperature 0, slowly and by themselves.

Each takes a function from ids to logits that pair with their positions (a shift is done before),
and returns the filled row. The mask id is never an answer.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Logits = Callable[[Tensor], Tensor]  # (1, L) ids -> (L, V)


def one_by_one(logits: Logits, prompt: Tensor, new: int, block: int, mask: int, score) -> Tensor:
    """LLaDA's and Dream's loop with as many steps as tokens.

    The whole response stands there masked; the window of `block` positions is filled from left to
    right, in it the position of the highest score first.
    """
    row = torch.cat([prompt, torch.full((new,), mask)])
    for start in range(len(prompt), len(row), block):
        for _ in range(min(block, len(row) - start)):
            found = logits(row[None])
            found[:, mask] = -torch.inf
            law = found.double().softmax(-1)
            best = score(law)
            best[row != mask] = -torch.inf
            best[:start] = -torch.inf
            best[start + block :] = -torch.inf
            place = int(best.argmax())
            row[place] = law[place].argmax()
    return row


def in_blocks(logits: Logits, prompt: Tensor, new: int, block: int, mask: int, score) -> Tensor:
    """SDAR's loop, one token a step: blocks of an absolute grid, of which nothing follows yet.

    The prompt's last tokens stand in the first generated block.
    """
    length = len(prompt) + new
    row = prompt
    while len(row) < length:
        stop = min(length, (len(row) // block + 1) * block)
        start = len(row)
        row = torch.cat([row, torch.full((stop - start,), mask)])
        for _ in range(stop - start):
            found = logits(row[None])
            found[:, mask] = -torch.inf
            law = found.double().softmax(-1)
            best = score(law)
            best[row != mask] = -torch.inf
            place = int(best.argmax())
            row[place] = law[place].argmax()
    return row


def in_sub_blocks(
    logits: Logits, prompt: Tensor, stop: int, sizes: tuple[int, int], mask: int, threshold: float
) -> Tensor:
    """Fast-dLLM v2's loop: blocks of an absolute grid, filled by sub-blocks of it.

    The first token of a block that no prompt token opens is the likeliest one behind the block
    before, taken by itself. `sizes` are those of a block and of a sub-block; `stop` ends a block.
    """
    block, sub = sizes
    row = prompt
    while len(row) < stop:
        if len(row) % block == 0:
            behind = logits(torch.cat([row, row.new_tensor([mask])])[None])[-1]
            behind[mask] = -torch.inf
            row = torch.cat([row, behind.argmax()[None]])
        start = (len(row) - 1) // block * block
        row = torch.cat([row, torch.full((start + block - len(row),), mask)])
        for first in range(start, start + block, sub):
            is_here = torch.zeros(len(row), dtype=torch.bool)
            is_here[first : first + sub] = True
            while bool((is_open := is_here & (row == mask)).any()):
                found = logits(row[None])
                found[:, mask] = -torch.inf
                certainty, best = found.double().softmax(-1).max(-1)
                certainty[~is_open] = -torch.inf
                chosen = certainty > threshold
                chosen[certainty.argmax()] = True
                row = torch.where(chosen, best, row)
    return row


def left_to_right(logits: Logits, prompt: Tensor, new: int, mask: int) -> Tensor:
    """A causal model: each token is the likeliest one behind those before it."""
    row = prompt
    for _ in range(new):
        found = logits(torch.cat([row, row[-1:]])[None])[-1]  # paired: predicts its own place
        found[mask] = -torch.inf
        row = torch.cat([row, found.argmax()[None]])
    return row


def highest_probability(law: Tensor) -> Tensor:
    """(L,) the likeliest token's probability."""
    return law.amax(-1)


def lowest_entropy(law: Tensor) -> Tensor:
    """(L,) the negative entropy."""
    return (law * (law + 1e-30).log()).sum(-1)
