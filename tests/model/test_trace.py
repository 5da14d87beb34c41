"""The trace of a decode: every token once, where and when it was revealed."""

import pytest
import torch
from small_decoding import CANVAS, PATTERNS, decode, prompts, responses, tiny_model

from unidiff.generation.trace import Trace


@pytest.mark.parametrize("mode", ["diffusion", "ar", "self_speculative"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_trace_holds_every_token_once(pattern: str, mode: str) -> None:
    if mode != "diffusion" and pattern != "causal_context":
        pytest.skip("the second reading belongs to causal_context")
    ids, mask = prompts([8, 3])
    options = {"max_new_tokens": [17, 9], "decoding_mode": mode, "seed": 3}
    output = decode(tiny_model(pattern), ids, mask, return_trace=True, **options)
    for row, answer in enumerate(responses(output, 8)):
        trace = output.trace[row]
        assert sorted(trace.index) == list(range(len(answer)))
        assert [answer[index] for index in trace.index] == trace.token_id
        assert trace.step == sorted(trace.step)
        assert trace.step[0] >= 1
        assert trace.step[-1] <= int(output.num_forwards[row])
        assert all(0 < value <= 1 for value in trace.confidence)


def test_the_trace_of_a_canvas_counts_its_own_places() -> None:
    ids, mask = prompts([4])
    canvas = torch.tensor([[9] * CANVAS])
    pinned = torch.tensor([[True, False] * (CANVAS // 2)])
    output = decode(
        tiny_model("causal_context"),
        ids,
        mask,
        canvas=canvas,
        pinned_mask=pinned,
        return_trace=True,
    )
    assert sorted(output.trace[0].index) == [1, 3, 5]


def test_what_was_cut_off_behind_the_end_is_no_part_of_the_trace() -> None:
    trace = Trace([1, 1, 2], [0, 2, 1], [5, 6, 7], [0.1, 0.2, 0.3])
    trace.keep(2)
    assert list(trace) == [(1, 0, 5, 0.1), (2, 1, 7, 0.3)]
    trace.keep(0)
    assert len(trace) == 0


def test_without_asking_there_is_no_trace() -> None:
    ids, mask = prompts([4])
    assert decode(tiny_model("full"), ids, mask, max_new_tokens=3).trace is None
