"""Rules on logits: modality limits, guidance, processors."""

import pytest
import torch

from unidiff.generation.confidence import CONFIDENCES
from unidiff.generation.constraints import (
    apply_processors,
    check_scores,
    limit_to_modality,
    shared_id_range,
)
from unidiff.tokens.layout import contiguous_layout

LAYOUT = contiguous_layout(
    {"text": 6, "image": 3, "action": 2},
    reserved_token_ids=(4,),
    mask_token_id=1,
    pad_token_id=0,
    end_token_ids=(3,),
)


def test_positions_take_only_ids_of_their_modality_and_never_the_mask() -> None:
    modality = torch.tensor([0, 1, 2])
    limited = limit_to_modality(torch.zeros(3, 11), modality, LAYOUT, 11, None)
    assert [torch.nonzero(torch.isfinite(row))[:, 0].tolist() for row in limited] == [
        [0, 2, 3, 5],
        [6, 7, 8],
        [9, 10],
    ]


def test_limits_on_a_slice_equal_the_slice_of_the_limits() -> None:
    logits = torch.randn(4, 11)
    text = torch.zeros(4, dtype=torch.int64)
    assert shared_id_range(text, LAYOUT) == (0, 6)
    part = limit_to_modality(logits[:, :6].clone(), text, LAYOUT, 11, (0, 6))
    assert torch.equal(part, limit_to_modality(logits, text, LAYOUT, 11, None)[:, :6])
    assert shared_id_range(torch.tensor([1, 1]), LAYOUT) == (6, 9)
    assert shared_id_range(torch.tensor([0, 1]), LAYOUT) is None


def test_limits_are_written_in_place_and_keep_the_dtype() -> None:
    logits = torch.zeros(2, 11, dtype=torch.bfloat16)
    limited = limit_to_modality(logits, torch.tensor([1, 1]), LAYOUT, 11, None)
    assert limited is logits
    assert limited.dtype == torch.bfloat16


def test_processors_see_each_rows_own_tokens_once_per_position() -> None:
    seen = []

    def add_known(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(ids.tolist())
        return scores + ids.shape[1]

    logits = torch.zeros(3, 2)
    rows = torch.tensor([0, 0, 2])
    result = apply_processors([add_known, add_known], logits, rows, [[5, 6], [], [7]])
    assert result.tolist() == [[4.0, 4.0], [4.0, 4.0], [2.0, 2.0]]
    assert seen == [[[5, 6], [5, 6]], [[5, 6], [5, 6]], [[7]], [[7]]]
    assert apply_processors([], logits, rows, []) is logits


@pytest.mark.parametrize("metric", CONFIDENCES)
def test_scores_without_a_choice_are_named(metric: str) -> None:
    def check(scores: torch.Tensor, processed: bool) -> None:
        check_scores(scores, CONFIDENCES[metric](scores), processed)

    check(torch.tensor([[0.0, -torch.inf]]), True)
    with pytest.raises(ValueError, match="without any id"):
        check(torch.full((1, 2), -torch.inf), True)
    for processed, whose in (
        (True, "logits_processor returned NaN"),
        (False, "the model returned"),
    ):
        with pytest.raises(ValueError, match=whose):
            check(torch.tensor([[0.0, torch.nan]]), processed)


@pytest.mark.parametrize("returned", [None, torch.zeros(1, 1), torch.zeros(2)])
def test_processors_that_return_something_else_are_refused(returned: object) -> None:
    with pytest.raises(ValueError, match=r"must return scores of shape \(1, 2\)"):
        apply_processors(
            [lambda ids, scores: returned], torch.zeros(1, 2), torch.tensor([0]), [[1]]
        )
