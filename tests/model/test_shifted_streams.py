"""The training pass where rows predict successors, and where a block is noised twice."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unidiff.data.collator import BlockCollator
from unidiff.model.likelihood import ar_nll, nll
from unidiff.model.streams import training_streams

MASK = 1
IDS = [2, 9, 10, 11, 12, 13, 14, 15]
BLOCKS = {
    "causal_context": [-1, -1, -1, 0, 0, 0, 1, 1],
    "block_causal": [0, 0, 0, 0, 1, 1, 1, 1],  # on a grid of four, three tokens of it pinned
}
PINNED = {"causal_context": [4], "block_causal": [0, 1, 2]}
PATTERNS = pytest.mark.parametrize("pattern", sorted(BLOCKS))


def sample_of(pattern: str, make_sample: Callable) -> dict[str, Any]:
    return make_sample(IDS, BLOCKS[pattern], pinned=PINNED[pattern])


def losses_of(model: Any, streams: Any, is_masked_BK: Tensor) -> Tensor:
    """(B, K) losses of the masked positions, zero elsewhere."""
    losses = model(**streams.inputs(is_masked_BK, MASK)).token_losses
    return torch.where(is_masked_BK, streams.canvas_losses(losses), 0.0)


def loss_by_a_plain_forward(model: Any, pattern: str, number: int, noisy: list[int]) -> Tensor:
    """(block length,) losses of one block behind clean tokens, each read from the row before."""
    place = [i for i, block in enumerate(BLOCKS[pattern]) if block == number]
    ids = torch.tensor([IDS[: place[0]] + noisy])
    index = torch.arange(len(ids[0]))
    if pattern == "block_causal":
        sees = index[None, :] // 4 <= index[:, None] // 4
    else:
        sees = (index[None, :] <= index[:, None]) | (index[:, None] >= place[0])
    logits = model(ids, attention_mask=sees[None, None]).logits[0]
    logits[:, MASK] = -torch.inf
    rows = [i - 1 for i in place]
    return cross_entropy(logits[rows], torch.tensor([IDS[i] for i in place]), reduction="none")


@PATTERNS
@pytest.mark.parametrize("masks", ["all", "some"])
def test_a_token_is_read_from_the_row_before_it(
    pattern: str, masks: str, make_model: Callable, make_sample: Callable
) -> None:
    model = make_model(attention_pattern=pattern, logits_shift=1)
    batch = BlockCollator()([sample_of(pattern, make_sample)])
    streams = training_streams(batch, model.config.grid, 1)
    is_masked = streams.can_mask_BK.clone()
    if masks == "some":
        is_masked[0, -1] = False
    found = losses_of(model, streams, is_masked)[0]
    start = 0
    for number in (0, 1):
        place = [i for i, block in enumerate(BLOCKS[pattern]) if block == number]
        stop = start + len(place)
        at = is_masked[0, start:stop]
        noisy = [MASK if m else IDS[i] for i, m in zip(place, at.tolist(), strict=True)]
        if place[0] == 0:  # nobody speaks for the row's first token
            assert not at[0]
            expected = loss_by_a_plain_forward(model, pattern, number, noisy)
            expected[0] = 0.0
        else:
            expected = loss_by_a_plain_forward(model, pattern, number, noisy)
        torch.testing.assert_close(found[start:stop][at], expected[at], rtol=1e-5, atol=1e-5)
        start = stop


def test_blocks_of_one_are_the_autoregressive_likelihood(
    make_model: Callable, make_sample: Callable
) -> None:
    model = make_model(logits_shift=1)
    samples = [make_sample(IDS, [-1, 0, 1, 2, 3, 4, 5, 6]), make_sample([2, 5, 6], [-1, 0, 1])]
    for collator in (BlockCollator(), BlockCollator(packed_length=16)):
        batch = collator(samples)
        bound = nll(model, batch, exact=True)
        torch.testing.assert_close(bound.nats_B, ar_nll(model, batch), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shift", [0, 1])
@PATTERNS
def test_two_noises_beside_each_other_are_two_passes(
    pattern: str, shift: int, make_model: Callable, make_sample: Callable
) -> None:
    model = make_model(attention_pattern=pattern, logits_shift=shift)
    samples = [sample_of(pattern, make_sample), make_sample([2, 5, 6], [-1, 0, 0])]
    batch = BlockCollator()(samples[: 1 if pattern == "block_causal" else 2])
    grid = model.config.grid
    once, twice = (training_streams(batch, grid, shift, copies) for copies in (1, 2))
    first = once.can_mask_BK & (torch.arange(once.can_mask_BK.shape[1]) % 2 == 0)
    second = once.can_mask_BK & ~first
    found = losses_of(model, twice, torch.cat([first, second], dim=1))
    expected = torch.cat([losses_of(model, once, one) for one in (first, second)], dim=1)
    assert (found > 0).sum() == once.can_mask_BK.sum()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert twice.copy_K.tolist() == [0] * len(once.copy_K) + [1] * len(once.copy_K)


def test_a_label_that_nothing_precedes_is_refused(make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample(IDS, [0] * 8)])
    training_streams(batch, None)
    with pytest.raises(ValueError, match="not wanted"):
        training_streams(batch, None, 1)
