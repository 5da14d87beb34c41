"""Prepacked weights: the same products from another layout."""

import copy
import pickle

import pytest
import torch
from small_decoding import decode, prompts, tiny_model
from torch import nn

from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.packing import PackedLinear, packed_weights


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_products_equal_the_layers_in_bfloat16(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    layers = [nn.Linear(640, width, bias=bias).bfloat16() for width in (640, 320, 320)]
    packed = PackedLinear([layer.weight for layer in layers], [layer.bias for layer in layers])
    hidden = torch.randn(1, rows, 640).bfloat16()
    for layer, output in zip(layers, packed.split(hidden), strict=True):
        torch.testing.assert_close(output, layer(hidden), rtol=1e-2, atol=1e-2)
        assert output.shape == layer(hidden).shape


def test_without_a_layout_of_onednns_own_the_product_stays_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(weight: torch.Tensor) -> None:
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuse)
    layers = [nn.Linear(16, width) for width in (8, 4)]
    packed = PackedLinear([layer.weight for layer in layers], [layer.bias for layer in layers])
    assert not packed.is_reordered
    hidden = torch.randn(2, 3, 16)
    for layer, output in zip(layers, packed.split(hidden), strict=True):
        torch.testing.assert_close(output, layer(hidden))


def model_of(dtype: torch.dtype = torch.float32) -> UniDiffForBlockDiffusion:
    return tiny_model("causal_context", attention_bias=True).to(dtype)


@pytest.mark.parametrize("mode", ["diffusion", "ar"])
def test_decoding_from_packed_weights_gives_the_same_tokens(mode: str) -> None:
    model = model_of()
    ids, mask = prompts([7, 13])
    options = {"max_new_tokens": 15, "decoding_mode": mode, "seed": 4}
    plain = decode(model, ids, mask, **options)
    packed = decode(model, ids, mask, prepack_weights=True, **options)
    assert torch.equal(plain.sequences, packed.sequences)
    torch.testing.assert_close(plain.logprobs, packed.logprobs, rtol=0, atol=1e-4)


def test_packed_weights_are_made_once_and_again_when_a_weight_changes() -> None:
    model = model_of()
    first = packed_weights(model)
    assert packed_weights(model) is first
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(2.0)
    second = packed_weights(model)
    assert second is not first
    hidden = torch.randn(1, 3, 32)
    wide = model.model.layers[1].mlp.up_proj(hidden)
    torch.testing.assert_close(second.layers[1].mlp_in.split(hidden)[1], wide)


def test_a_wrapped_projection_is_named() -> None:
    model = model_of()
    model.model.layers[0].mlp.up_proj = nn.Sequential(model.model.layers[0].mlp.up_proj)
    with pytest.raises(ValueError, match=r"plain linear layers, found Sequential: merge"):
        packed_weights(model)


@pytest.mark.parametrize("where", ["meta", torch.float64])
def test_another_device_or_dtype_is_refused(where: object) -> None:
    with pytest.raises(ValueError, match="needs a CPU"):
        packed_weights(model_of().to(where))


def test_copies_of_a_model_hold_no_packed_weights() -> None:
    model = model_of()
    held = packed_weights(model)
    again = copy.deepcopy(model)
    assert packed_weights(again) is not held
    pickle.dumps(model)
