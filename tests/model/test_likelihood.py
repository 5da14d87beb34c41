"""The likelihood estimates against enumeration of orders and plain loops over positions."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unidiff.data.collator import BlockCollator
from unidiff.model.likelihood import ar_nll, nll

MASK = 1
IDS = [2, 9, 10, 11, 12, 13, 14, 15]


@torch.no_grad()
def log_probs(model: Any, context: list[int], canvas: list[int]) -> Tensor:
    """(K, V) log-probabilities of a canvas behind a clean causal context, from an own mask."""
    before, width = len(context), len(canvas)
    mask = torch.ones(before + width, before + width, dtype=torch.bool)
    mask[:before] = mask[:before].tril()
    logits = model(torch.tensor([context + canvas]), attention_mask=mask[None, None]).logits[0]
    logits = logits[before:].double()
    logits[:, MASK] = -torch.inf
    return logits.log_softmax(-1)


def order_losses(model: Any, context: list[int], block: list[int]) -> np.ndarray:
    """(K!,) nats of a block whose tokens are revealed one by one in each order."""
    totals = []
    for order in itertools.permutations(range(len(block))):
        canvas, total = [MASK] * len(block), 0.0
        for place in order:
            total -= float(log_probs(model, context, canvas)[place, block[place]])
            canvas[place] = block[place]
        totals.append(total)
    return np.array(totals)


@pytest.fixture
def model(make_model: Callable) -> Any:
    return make_model().double()


def test_enumerated_bound_is_the_average_over_all_orders(model: Any, make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample(IDS, [-1, -1, 0, 0, 0, 0, 1, 1])])
    expected = order_losses(model, IDS[:2], IDS[2:6]).mean()
    expected += order_losses(model, IDS[:6], IDS[6:]).mean()
    bound = nll(model, batch, exact=True)
    assert bound.nats_B.item() == pytest.approx(expected, abs=1e-5)
    assert bound.standard_error_B.tolist() == [0.0]
    assert bound.num_tokens_B.tolist() == [6]


def test_bound_is_at_least_the_exact_likelihood(model: Any, make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample(IDS[:6], [-1, -1, 0, 0, 0, 0])])
    exact = -np.log(np.exp(-order_losses(model, IDS[:2], IDS[2:6])).mean())
    assert model.nll(batch, exact=True).nats_B.item() > exact


def test_pinned_tokens_are_seen_and_not_scored(model: Any, make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample(IDS[:4], [-1, 0, 0, 0], pinned=[2])])
    both = [MASK, IDS[2], MASK]
    first = log_probs(model, IDS[:1], both)
    behind = log_probs(model, IDS[:1], [IDS[1], IDS[2], MASK])
    ahead = log_probs(model, IDS[:1], [MASK, IDS[2], IDS[3]])
    expected = first[0, IDS[1]] + behind[2, IDS[3]] + first[2, IDS[3]] + ahead[0, IDS[1]]
    bound = nll(model, batch, exact=True)
    assert bound.nats_B.item() == pytest.approx(-float(expected) / 2, abs=1e-5)
    assert bound.num_tokens_B.tolist() == [2]


@pytest.mark.parametrize("exact", [True, False])
def test_block_length_one_is_the_sum_of_single_mask_losses(
    exact: bool, model: Any, make_sample: Callable
) -> None:
    batch = BlockCollator()([make_sample(IDS, [-1, 0, 1, 2, 3, 4, 5, 6])])
    expected = -sum(
        float(log_probs(model, IDS[:place], [MASK])[0, IDS[place]]) for place in range(1, 8)
    )
    estimate = nll(model, batch, num_samples=2, exact=exact)
    assert estimate.nats_B.item() == pytest.approx(expected, abs=1e-5)
    assert estimate.standard_error_B.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("num_samples", [3, 8])
def test_estimate_is_unbiased_and_knows_its_error(
    num_samples: int, model: Any, make_sample: Callable
) -> None:
    blocks = [-1, -1, 0, 0, 0, 0, 1, 1]
    samples = [make_sample(IDS, blocks, key=key) for key in range(400)]
    exact = float(nll(model, BlockCollator()(samples[:1]), exact=True).nats_B)
    batch = BlockCollator()(samples)
    estimate = nll(model, batch, num_samples=num_samples, seed=11, rows_per_forward=4000)
    spread = float(estimate.nats_B.std())
    assert abs(float(estimate.nats_B.mean()) - exact) < 3 * spread / 400**0.5
    assert spread > 0
    stated = float(estimate.standard_error_B.square().mean().sqrt())
    assert 0.9 * spread < stated < 2.5 * spread  # stratified: the stated error is the larger


def test_every_count_is_covered_equally(
    model: Any, make_sample: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    forward = model.forward

    def counted(**inputs: Any) -> Any:
        counts.extend((inputs["labels"] != -100).sum(1).tolist())
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", counted)
    batch = BlockCollator()([make_sample(IDS, [-1, -1, -1, 0, 0, 0, 0, 0], key=3)])
    nll(model, batch, num_samples=10, seed=4)
    assert sorted(counts) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_estimate_of_a_sample_does_not_depend_on_its_batch(
    model: Any, make_sample: Callable
) -> None:
    samples = [
        make_sample(IDS, [-1, -1, 0, 0, 0, 1, 1, 1], key=5),
        make_sample([2, 7, 8], [-1, 0, 0], key=6),
        make_sample([2, 20, 21, 22], [-1, 3, 3, 3], key=7),
    ]
    options: dict[str, Any] = {"num_samples": 5, "seed": 9}
    padded = nll(model, BlockCollator()(samples), **options)
    alone = [nll(model, BlockCollator()([s]), rows_per_forward=2, **options) for s in samples]
    torch.testing.assert_close(padded.nats_B, torch.cat([a.nats_B for a in alone]))
    torch.testing.assert_close(
        padded.standard_error_B, torch.cat([a.standard_error_B for a in alone])
    )
    packed = nll(model, BlockCollator(packed_length=16)(samples), **options)
    torch.testing.assert_close(packed.nats_B, padded.nats_B.sum(0, keepdim=True))
    assert packed.num_tokens_B.tolist() == [11]
    for exact in (True, False):
        rows = nll(model, BlockCollator()(samples), exact=exact, **options).nats_B
        one = nll(model, BlockCollator(packed_length=16)(samples), exact=exact, **options).nats_B
        torch.testing.assert_close(one, rows.sum(0, keepdim=True))


def test_seed_decides_the_estimate(model: Any, make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample(IDS, [-1, -1, 0, 0, 0, 0, 0, 0])])
    first = nll(model, batch, num_samples=2, seed=1).nats_B
    assert torch.equal(first, nll(model, batch, num_samples=2, seed=1).nats_B)
    assert not torch.equal(first, nll(model, batch, num_samples=2, seed=2).nats_B)


def test_a_grid_model_is_scored_with_its_own_mask(
    make_model: Callable, make_sample: Callable
) -> None:
    model = make_model(attention_pattern="block_causal", canvas_length=2).double()
    batch = BlockCollator()([make_sample(IDS[:4], [-1, -1, 1, 1])])
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[:2, 2:] = False

    def score(canvas: list[int]) -> Tensor:
        ids = torch.tensor([IDS[:2] + canvas])
        logits = model(ids, attention_mask=mask[None, None]).logits[0, 2:]
        logits[:, MASK] = -torch.inf
        return -logits.log_softmax(-1)[[0, 1], IDS[2:4]]

    expected = score([MASK, MASK]).sum() / 2
    expected += score([MASK, IDS[3]])[0] / 2 + score([IDS[2], MASK])[1] / 2
    bound = nll(model, batch, exact=True).nats_B
    torch.testing.assert_close(bound, expected[None], rtol=1e-6, atol=1e-6)


def test_successor_reading_is_the_chain_rule(model: Any, make_sample: Callable) -> None:
    samples = [
        make_sample(IDS, [-1, -1, -1, 0, 0, 0, 1, 1], outside_context=[7]),
        make_sample([2, 7, 8], [-1, 0, 0], pinned=[1]),
    ]
    logits = model(torch.tensor([IDS])).logits[0].detach().double()
    logits[:, MASK] = -torch.inf
    table = logits.log_softmax(-1)
    expected = -sum(float(table[place - 1, IDS[place]]) for place in range(3, 7))
    nats_B = model.ar_nll(BlockCollator()(samples))
    assert nats_B[0].item() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(nats_B[1:], ar_nll(model, BlockCollator()(samples[1:])))
    packed = ar_nll(model, BlockCollator(packed_length=16)(samples))
    torch.testing.assert_close(packed, nats_B.sum(0, keepdim=True))


def test_scoring_leaves_the_model_as_it_was(make_model: Callable, make_sample: Callable) -> None:
    model = make_model(attention_dropout=0.5, attn_implementation="eager").train()
    batch = BlockCollator()([make_sample(IDS, [-1, -1, 0, 0, 0, 0, 0, 0])])
    first = nll(model, batch, num_samples=2)
    assert model.training
    assert not first.nats_B.requires_grad
    assert torch.equal(first.nats_B, nll(model, batch, num_samples=2).nats_B)  # no dropout
    assert torch.equal(ar_nll(model, batch), ar_nll(model, batch))


def test_nothing_to_score_is_zero_nats(model: Any, make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample([2, 3, 4], [-1, -1, -1])])
    for exact in (True, False):
        estimate = nll(model, batch, exact=exact)
        assert estimate.nats_B.tolist() == [0.0]
        assert estimate.num_tokens_B.tolist() == [0]
    assert ar_nll(model, batch).tolist() == [0.0]


def test_impossible_requests_are_refused(make_model: Callable, make_sample: Callable) -> None:
    model = make_model()
    batch = BlockCollator()([make_sample([2, *range(3, 12)], [-1] + [0] * 9)])
    with pytest.raises(ValueError, match="at most 8 labels, got one of 9"):
        nll(model, batch, exact=True)
    with pytest.raises(ValueError, match="num_samples and rows_per_forward"):
        nll(model, batch, num_samples=0)
    first = BlockCollator()([make_sample([2, 3], [0, 0])])
    with pytest.raises(ValueError, match="no token precedes"):
        nll(make_model(logits_shift=1), first)
    with pytest.raises(ValueError, match="see their successors"):
        ar_nll(make_model(attention_pattern="block_causal"), batch)
