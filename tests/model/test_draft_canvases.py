"""Canvases behind several tokens of a run are those that a probe behind each token would see."""

import numpy as np
import pytest
import torch
from small_decoding import tiny_model

from unidiff.generation.denoiser import Run
from unidiff.model.denoiser import ModelDenoiser
from unidiff.model.draft_canvases import branch_mask
from unidiff.model.placement import Placement

WIDTH = 2


def run_at(ids: list[list[int]], starts: list[list[int]]) -> Run:
    """Run of text tokens at the given positions."""
    places = [np.tile(np.asarray(row, dtype=np.int64), (3, 1)) for row in starts]
    return Run.of(ids, places, torch.device("cpu"))


def test_each_canvas_sees_the_run_up_to_its_token_and_itself() -> None:
    counts = torch.tensor([1]), torch.tensor([2]), torch.tensor([3])
    mask = branch_mask(Placement.of(*counts, (2, 3)), torch.tensor([[0, 0, 1]]))
    rows = ["".join("x" if seen else "." for seen in row) for row in mask[0, 0].tolist()]
    assert rows == ["xx....", "xxx...", "xx.xx.", "xx.xx.", "xxx..x"]


@pytest.mark.parametrize("logits_shift", [0, 1])
def test_verify_equals_a_probe_behind_each_token(logits_shift: int) -> None:
    denoiser = ModelDenoiser(tiny_model("causal_context"))
    denoiser.logits_shift = logits_shift
    mask_id = denoiser.layout.mask_token_id
    prompts, drafts = [[5, 6, 7], [8, 9]], [[10, 11], [12]]
    cache = denoiser.new_cache(2)
    denoiser.commit(cache, run_at(prompts, [[0, 1, 2], [0, 1]]))
    run = run_at(drafts, [[3, 4], [2]])
    canvas = run_at([[mask_id] * 4, [mask_id] * 2], [[4, 5, 5, 6], [3, 4]])
    behind_BK = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
    asked_BT = torch.tensor([[True, True], [True, False]])
    logits, predict = denoiser.verify(
        cache, run, canvas, behind_BK=behind_BK, logits_at_BT=asked_BT
    )
    predicted = predict(torch.tensor([[True] * 4, [True, True, False, False]]))
    read, probed = [], []
    for prompt, draft in zip(prompts, drafts, strict=True):
        for count in range(1, len(draft) + 1):
            known = prompt + draft[:count]
            alone = denoiser.new_cache(1)
            denoiser.commit(alone, run_at([known], [list(range(len(known)))]))
            read.append(denoiser.next_logits(alone))
            behind = run_at([[mask_id] * WIDTH], [[len(known), len(known) + 1]])
            everything = torch.ones(1, WIDTH, dtype=torch.bool)
            probed.append(denoiser.probe(alone, behind, logits_at_BK=everything))
    torch.testing.assert_close(logits, torch.cat(read), rtol=0, atol=1e-9)
    torch.testing.assert_close(predicted, torch.cat(probed), rtol=0, atol=1e-9)
    assert cache.token_ids == [
        prompt + draft for prompt, draft in zip(prompts, drafts, strict=True)
    ]
