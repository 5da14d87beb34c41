"""`ModelDenoiser` and its cache: probes read, commits write, shifted rows speak for the next."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unidiff.generation.denoiser import Run
from unidiff.model.cache import BlockCache
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.denoiser import ModelDenoiser
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import IdRange, TokenLayout

VOCAB = 40


def denoiser_of(**config: Any) -> ModelDenoiser:
    torch.manual_seed(5)
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "head_dim": 16,
        "canvas_length": 4,
        "initializer_range": 0.25,
        "tie_word_embeddings": False,
        **config,
    }
    return ModelDenoiser(UniDiffForBlockDiffusion(UniDiffConfig(**settings)).double().eval())


def run_of(*rows: list[int], start: list[int] | None = None) -> Run:
    """A run of text rows, each at its own start."""
    starts = start or [0] * len(rows)
    positions = [
        np.broadcast_to(np.arange(first, first + len(row)), (3, len(row)))
        for row, first in zip(rows, starts, strict=True)
    ]
    return Run.of(rows, positions, torch.device("cpu"))


def everywhere(run: Run) -> Tensor:
    """Every real token of a run."""
    return torch.arange(run.ids_BT.shape[1]) < run.length_B[:, None]


def snapshot(cache: BlockCache) -> list[Tensor]:
    """Copies of every committed key and value, row by row."""
    stored = [cache.read(layer) for layer in range(2)]
    return [
        tensor[row, :, :length].clone()
        for pair in stored
        if pair is not None
        for tensor in pair
        for row, length in enumerate(cache.lengths_B.tolist())
    ]


def test_run_pads_ragged_rows_on_the_right() -> None:
    run = run_of([5, 6], [], [7, 8, 9], start=[3, 0, 1])
    assert run.ids_BT.tolist() == [[5, 6, 0], [0, 0, 0], [7, 8, 9]]
    assert run.position_3BT[1].tolist() == [[3, 4, 0], [0, 0, 0], [1, 2, 3]]
    assert run.length_B.tolist() == [2, 0, 3]


def test_probe_leaves_the_cache_untouched() -> None:
    denoiser = denoiser_of()
    cache = denoiser.new_cache(2)
    denoiser.commit(cache, run_of([5, 6, 7], [8]))
    before, ids = snapshot(cache), [list(row) for row in cache.token_ids]
    canvas = run_of([1, 1, 1], [1, 1], start=[3, 1])
    first = denoiser.probe(cache, canvas, logits_at_BK=everywhere(canvas))
    second = denoiser.probe(cache, canvas, logits_at_BK=everywhere(canvas))
    assert first.shape == (5, VOCAB)
    assert torch.equal(first, second)
    assert cache.token_ids == ids
    assert cache.lengths_B.tolist() == [3, 1]
    for old, new in zip(before, snapshot(cache), strict=True):
        assert torch.equal(old, new)


def test_stored_keys_are_those_of_clean_tokens() -> None:
    """Committing after a probe stores the same as committing without one."""
    denoiser = denoiser_of()
    direct, probed = denoiser.new_cache(1), denoiser.new_cache(1)
    denoiser.commit(direct, run_of([5, 6, 7, 8]))
    canvas = run_of([1, 6, 1, 8])
    denoiser.probe(probed, canvas, logits_at_BK=everywhere(canvas))
    denoiser.commit(probed, run_of([5, 6, 7, 8]))
    for one, other in zip(snapshot(direct), snapshot(probed), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("pattern", ["causal_context", "block_causal"])
def test_committed_run_does_not_see_the_canvas(pattern: str) -> None:
    denoiser = denoiser_of(attention_pattern=pattern)
    stored = []
    for fill in (1, 33):
        cache = denoiser.new_cache(1)
        canvas = run_of([fill] * 4, start=[4])
        denoiser.probe(cache, canvas, logits_at_BK=everywhere(canvas), commit=run_of([5, 6, 7, 8]))
        stored.append(snapshot(cache))
    for one, other in zip(*stored, strict=True):
        assert torch.equal(one, other)


def test_id_range_gives_the_slice_of_all_logits() -> None:
    denoiser = denoiser_of()
    canvas = run_of([1, 1, 1])
    whole = denoiser.probe(denoiser.new_cache(1), canvas, logits_at_BK=everywhere(canvas))
    part = denoiser.probe(
        denoiser.new_cache(1), canvas, logits_at_BK=everywhere(canvas), id_range=(10, 20)
    )
    torch.testing.assert_close(part, whole[:, 10:20])


def test_logits_come_row_by_row_at_the_places_asked_for() -> None:
    denoiser = denoiser_of()
    canvas = run_of([1, 9, 1], [1, 1])
    whole = denoiser.probe(denoiser.new_cache(2), canvas, logits_at_BK=everywhere(canvas))
    asked = torch.tensor([[True, False, True], [False, True, False]])
    some = denoiser.probe(denoiser.new_cache(2), canvas, logits_at_BK=asked)
    torch.testing.assert_close(some, whole[[0, 2, 4]])


@pytest.mark.parametrize("fused", [True, False])
def test_shifted_logits_are_read_one_row_earlier(fused: bool) -> None:
    shifted, plain = denoiser_of(logits_shift=1), denoiser_of(logits_shift=0)
    shifted.model.load_state_dict(plain.model.state_dict())
    context, canvas = run_of([5, 6], [7, 8, 9]), run_of([1, 11, 1], [1, 1], start=[2, 3])
    logits = []
    for denoiser in (shifted, plain):
        cache = denoiser.new_cache(2)
        if not fused:
            denoiser.commit(cache, context)
            last = denoiser.next_logits(cache)
        commit = context if fused else None
        logits.append(denoiser.probe(cache, canvas, logits_at_BK=everywhere(canvas), commit=commit))
        if fused:
            last = denoiser.model.read_head(cache.last_hidden_BD)
    torch.testing.assert_close(logits[0][[0, 3]], last)  # from the last context row
    torch.testing.assert_close(logits[0][[1, 2, 4]], logits[1][[0, 1, 3]])


def test_shifted_first_token_needs_a_token_before_it() -> None:
    denoiser = denoiser_of(logits_shift=1)
    canvas = run_of([1, 1])
    with pytest.raises(ValueError, match="pass a prompt of at least one token"):
        denoiser.probe(denoiser.new_cache(1), canvas, logits_at_BK=everywhere(canvas))


def test_row_without_new_tokens_keeps_its_last_reading() -> None:
    denoiser = denoiser_of()
    cache = denoiser.new_cache(2)
    denoiser.commit(cache, run_of([5, 6], [7]))
    first = denoiser.next_logits(cache)
    denoiser.commit(cache, run_of([], [8, 9], start=[0, 1]))
    second = denoiser.next_logits(cache)
    assert torch.equal(first[0], second[0])
    single = denoiser.new_cache(1)
    denoiser.commit(single, run_of([7, 8, 9]))
    alone = denoiser.next_logits(single)
    torch.testing.assert_close(alone[0], second[1])
    assert cache.token_ids == [[5, 6], [7, 8, 9]]
    assert cache.lengths_B.tolist() == [2, 3]


def test_rows_can_be_selected_joined_and_cropped() -> None:
    denoiser = denoiser_of()
    cache = denoiser.new_cache(3)
    denoiser.commit(cache, run_of([5, 6, 7], [8], [9, 10]))
    apart = [cache.select_rows([row]) for row in (2, 0, 1)]
    joined = BlockCache.concatenate([*apart, denoiser.new_cache(1)])
    assert joined.token_ids == [[9, 10], [5, 6, 7], [8], []]
    assert joined.num_slots == 3
    canvas = run_of([1, 1], [1, 1], [1, 1], start=[2, 3, 1])
    expected = denoiser.probe(cache.select_rows([2, 0, 1]), canvas, logits_at_BK=everywhere(canvas))
    joined.crop([2, 3, 1, 0])
    found = denoiser.probe(joined.select_rows([0, 1, 2]), canvas, logits_at_BK=everywhere(canvas))
    torch.testing.assert_close(found, expected)
    joined.crop([1, 1, 1, 0])
    assert joined.token_ids == [[9], [5], [8], []]
    assert [p.shape for p in joined.positions] == [(3, 1)] * 3 + [(3, 0)]
    assert joined.last_hidden_BD is None
    with pytest.raises(ValueError, match="row 0 holds 1 tokens, cannot keep 2"):
        joined.crop([2, 1, 1, 0])
    with pytest.raises(ValueError, match="one or more caches"):
        BlockCache.concatenate([])


def test_cropped_and_recommitted_cache_equals_a_fresh_one() -> None:
    denoiser = denoiser_of()
    cache, fresh = denoiser.new_cache(1), denoiser.new_cache(1)
    denoiser.commit(cache, run_of([5, 6, 7, 8]))
    cache.crop([2])
    denoiser.commit(cache, run_of([20, 21], start=[2]))
    denoiser.commit(fresh, run_of([5, 6, 20, 21]))
    for one, other in zip(snapshot(cache), snapshot(fresh), strict=True):
        torch.testing.assert_close(one, other)


def test_a_beginning_whose_tokens_see_each_other_ends_in_the_first_run() -> None:
    """A further picture's end, in a run behind it, leaves the tokens before that causal."""
    end = 9
    layout = TokenLayout(
        ranges={"text": IdRange(0, VOCAB)},
        mask_token_id=1,
        pad_token_id=0,
        end_token_ids=(3,),
        prefix_end_token_id=end,
    )
    denoiser = denoiser_of(token_layout=layout.to_dict())
    rows = [5, 6, end, 7, 8, 10, end, 11], [5, end, 6, 7, 8, end, 10]
    cache, fresh = denoiser.new_cache(2), denoiser.new_cache(2)
    denoiser.commit(cache, run_of(*(row[:4] for row in rows)))
    denoiser.commit(cache, run_of(*(row[4:] for row in rows), start=[4, 4]))
    denoiser.commit(fresh, run_of(*rows))
    for one, other in zip(snapshot(cache), snapshot(fresh), strict=True):
        torch.testing.assert_close(one, other)


def test_selected_rows_share_nothing_with_their_source() -> None:
    denoiser = denoiser_of()
    cache = denoiser.new_cache(2)
    denoiser.commit(cache, run_of([5, 6], [7, 8]))
    before = snapshot(cache)
    copy = cache.select_rows([0, 1])
    denoiser.commit(copy, run_of([9], [9], start=[2, 2]))
    copy.crop([0, 0])
    denoiser.commit(copy, run_of([30, 31], [30, 31]))
    assert cache.token_ids == [[5, 6], [7, 8]]
    for old, new in zip(before, snapshot(cache), strict=True):
        assert torch.equal(old, new)
