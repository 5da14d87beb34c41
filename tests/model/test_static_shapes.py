"""`cache_implementation="static"`: the same tokens in forwards of few shapes."""

from typing import Any

import pytest
import torch
from small_decoding import CACHED, decode, prompts, tiny_model
from torch import Tensor

from unidiff.model.modeling import UniDiffModel


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("pattern", CACHED)
def test_static_decoding_equals_dynamic(pattern: str, shift: int) -> None:
    model = tiny_model(pattern, logits_shift=shift)
    ids, mask = prompts([7, 13, 4])
    options = {"max_new_tokens": [25, 9, 18], "max_denoising_steps": 4, "seed": 5}
    dynamic = decode(model, ids, mask, **options)
    static = decode(model, ids, mask, cache_implementation="static", **options)
    assert torch.equal(dynamic.sequences, static.sequences)
    torch.testing.assert_close(dynamic.logprobs, static.logprobs, rtol=0, atol=1e-10)
    assert dynamic.past_key_values.token_ids == static.past_key_values.token_ids


@pytest.mark.parametrize("mode", ["ar", "self_speculative"])
def test_static_modes_equal_dynamic(mode: str) -> None:
    model = tiny_model("causal_context")
    ids, mask = prompts([7, 13, 4])
    options = {"max_new_tokens": 20, "decoding_mode": mode, "seed": 5}
    dynamic = decode(model, ids, mask, **options)
    static = decode(model, ids, mask, cache_implementation="static", **options)
    assert torch.equal(dynamic.sequences, static.sequences)


def test_static_shapes_grow_by_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("causal_context")
    ids, mask = prompts([5])
    options = {"max_new_tokens": 600, "max_denoising_steps": 2, "seed": 2}
    shapes: set[tuple[int, ...]] = set()
    forward = UniDiffModel.forward

    def watched(self: Any, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Any:
        shapes.add(tuple(attention_mask.shape[2:]))
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, **inputs)

    monkeypatch.setattr(UniDiffModel, "forward", watched)
    decode(model, ids, mask, cache_implementation="static", **options)
    canvas = model.config.canvas_length
    assert shapes == {
        *((2 * canvas, slots) for slots in (256, 512, 1024)),
        *((canvas, slots) for slots in (256, 512, 1024)),
    }


def test_a_compiled_model_is_compiled_once_for_each_shape() -> None:
    model = tiny_model("causal_context")
    ids, mask = prompts([7])
    options = {"max_new_tokens": 60, "max_denoising_steps": 3, "seed": 5}
    plain = decode(model, ids, mask, **options)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.model.compile(backend="eager", dynamic=False)
    compiled = decode(model, ids, mask, cache_implementation="static", **options)
    torch.testing.assert_close(plain.logprobs, compiled.logprobs, rtol=0, atol=1e-10)
    assert torch.equal(plain.sequences, compiled.sequences)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] <= 3
    assert not counters["graph_break"]
