"""Quantised loading: transformers' quantizers get a foreign folder's weights as they are read."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BitsAndBytesConfig, TorchAoConfig
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from unidiff import UniDiffForBlockDiffusion
from unidiff.convert.writing import convert_checkpoint

from .published import TABLE

METHOD = "rounded_for_a_test"
LAYOUTS = pytest.mark.parametrize("name", ["sdar", "llada", "autoregressive"])
KINDS = pytest.mark.parametrize("kind", ["foreign", "native"])


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"needs {module}: unidiff[{extra}]"
    )


def folder_of(name: str, kind: str, tmp_path: Path) -> Path:
    published = next(one for one in TABLE if one.name == name)
    folder = published.write(tmp_path / "foreign", published.model(), num_files=2)
    return folder if kind == "foreign" else convert_checkpoint(folder, tmp_path / "native")


def ids() -> Tensor:
    return torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(0))


def rounded(weight: Tensor) -> Tensor:
    """Each row in steps of a 127th of its largest number."""
    step = weight.abs().amax(1, keepdim=True) / 127
    return torch.round(weight / step) * step


class RoundedConfig(QuantizationConfigMixin):
    def __init__(self, **kwargs: Any) -> None:
        self.quant_method = METHOD


class Round(ConversionOps):
    """Rounds a weight on its way into the model."""

    def convert(self, input_dict: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        made = {}
        for name, value in input_dict.items():
            made[name] = rounded(value[0] if isinstance(value, list) else value)
        return made


class RoundedQuantizer(HfQuantizer):
    requires_calibration = False
    is_serializable = False
    is_trainable = False

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        return "_proj." in param_name and param_name.endswith("weight")

    def get_quantize_ops(self) -> Round:
        return Round()


@pytest.fixture
def registered():
    register_quantization_config(METHOD)(RoundedConfig)
    register_quantizer(METHOD)(RoundedQuantizer)
    yield
    del AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD], AUTO_QUANTIZER_MAPPING[METHOD]


@KINDS
@LAYOUTS
def test_a_quantizer_gets_every_weight_once(name, kind, tmp_path, registered):
    folder = folder_of(name, kind, tmp_path)
    whole = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    model = UniDiffForBlockDiffusion.from_pretrained(
        folder, dtype=torch.float32, quantization_config=RoundedConfig()
    )
    expected = {
        key: rounded(weight) if key.endswith("_proj.weight") else weight
        for key, weight in whole.state_dict().items()
    }
    for key, weight in model.state_dict().items():
        torch.testing.assert_close(weight, expected[key], rtol=1e-5, atol=1e-7, msg=key)
    check_near(model, whole, 0.1)


def check_near(model: Any, whole: Any, share: float) -> None:
    """Logits differ by less than a share of their spread, and not by nothing; it decodes."""
    with torch.no_grad():
        found, expected = model.eval()(ids()).logits, whole.eval()(ids()).logits
    error = float((found - expected).float().std() / expected.std())
    assert 0 < error < share
    row = model.generate(ids()[:1], max_new_tokens=5, eos_token_id=-1)
    assert row.shape == (1, 14)


@needs("torchao", "quant")
@KINDS
@LAYOUTS
def test_torchao_in_8_bits(name, kind, tmp_path):
    from torchao.quantization import Int8WeightOnlyConfig

    folder = folder_of(name, kind, tmp_path)
    whole = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    model = UniDiffForBlockDiffusion.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=TorchAoConfig(Int8WeightOnlyConfig()),
        device_map="cpu",
    )
    assert type(model.model.layers[0].mlp.up_proj.weight.data) is not Tensor
    check_near(model, whole, 0.1)


@needs("bitsandbytes", "qlora")
@KINDS
@LAYOUTS
def test_bitsandbytes_in_4_bits(name, kind, tmp_path):
    folder = folder_of(name, kind, tmp_path)
    whole = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    options = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = UniDiffForBlockDiffusion.from_pretrained(
        folder, dtype=torch.float32, quantization_config=options, device_map="cpu"
    )
    assert hasattr(model.model.layers[0].mlp.up_proj.weight, "quant_state")
    check_near(model, whole, 0.7)
