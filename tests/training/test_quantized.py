"""A base in 4 bits: an adapter is trained on it as on its numbers in full, and says whose it is."""

import importlib.util
import sys

import pytest
import torch

from unidiff.bundled import bundled_checkpoint
from unidiff.model.adapters import known_fingerprint
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.training import quantized
from unidiff.training.lora import LoRAOptions, add_lora

IDS = torch.tensor([[2, 300, 301, 40, 57, 3]])
LABELS = torch.tensor([[-100, -100, 301, 40, 57, 3]])
LORA = LoRAOptions(r=2)
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs unidiff[qlora]"
)


@pytest.fixture
def whole():
    return UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)


def gradients(model):
    """Gradients of an adapter with the same numbers in each model."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.05)
    model.train()(IDS, labels=LABELS).token_losses.sum().backward()
    return {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


@needs_bitsandbytes
def test_gradients_are_those_of_the_dequantised_weights_after_an_evaluation_too(whole):
    from bitsandbytes.functional import dequantize_4bit

    model = quantized.load_quantized(bundled_checkpoint()).eval()
    for name, module in model.named_modules():
        if hasattr(getattr(module, "weight", None), "quant_state"):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            whole.get_submodule(name).weight.data = weight
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, whole.eval()(IDS).logits, rtol=0, atol=1e-4)
    own, expected = gradients(add_lora(model, LORA)), gradients(add_lora(whole, LORA))
    assert own.keys() == expected.keys()
    assert own
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


@needs_bitsandbytes
def test_the_record_names_the_full_weights(whole):
    model = quantized.load_quantized(bundled_checkpoint())
    assert known_fingerprint(model) == ""  # 4 bits have no fingerprint of their own
    record = quantized.quantized_record(model, bundled_checkpoint(), "t")
    assert record.base == "unidiff:bundled"
    assert record.base_fingerprint == known_fingerprint(whole)


@needs_bitsandbytes
def test_memory_is_a_third_of_float32(whole):
    model = quantized.load_quantized(bundled_checkpoint())
    assert model.get_memory_footprint() < whole.get_memory_footprint() / 3


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match=r"unidiff\[qlora\]"):
        quantized.load_quantized(bundled_checkpoint())


def test_the_fingerprint_of_mapped_files_is_that_of_the_loaded_model(whole):
    record = quantized.quantized_record(whole, bundled_checkpoint(), "t")
    assert record.base_fingerprint == known_fingerprint(whole)
