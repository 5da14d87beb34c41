"""Missing and damaged files of a model's checkpoint folder are named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

from unidiff.model.modeling import UniDiffForBlockDiffusion, UniDiffModel

NAMES = ("config.json", "generation_config.json", "model.safetensors")
Build = Callable[..., UniDiffForBlockDiffusion]


@pytest.fixture
def folder(make_model: Build, tmp_path: Path) -> Path:
    make_model().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_file_cut_short_is_named(folder: Path, name: str, kept: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * kept)])
    for model_class in (UniDiffForBlockDiffusion, UniDiffModel):
        with pytest.raises(ValueError, match=f"{name} is damaged or cut short"):
            model_class.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        UniDiffForBlockDiffusion.from_pretrained(folder)


def test_decoding_options_may_be_missing(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    model = UniDiffForBlockDiffusion.from_pretrained(folder)
    assert model.generate(torch.tensor([[5, 6]]), eos_token_id=-1).shape == (1, 2 + 4)


def test_a_damaged_file_is_named_through_the_auto_classes(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"{}")
    for auto in (AutoModel, AutoModelForCausalLM):
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
            auto.from_pretrained(folder)


def test_every_shard_is_checked(make_model: Build, tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    index = tmp_path / "model.safetensors.index.json"
    shard = sorted(set(json.loads(index.read_text())["weight_map"].values()))[1]
    whole = (tmp_path / shard).read_bytes()
    loaded = UniDiffForBlockDiffusion.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    (tmp_path / shard).write_bytes(whole[:100])
    with pytest.raises(ValueError, match=f"{shard} is damaged"):
        UniDiffForBlockDiffusion.from_pretrained(tmp_path)
    (tmp_path / shard).unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard} is missing"):
        UniDiffForBlockDiffusion.from_pretrained(tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match="weight_map"):
        UniDiffForBlockDiffusion.from_pretrained(tmp_path)


def test_weights_handed_over_need_no_file(folder: Path) -> None:
    weights = UniDiffForBlockDiffusion.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    config = UniDiffForBlockDiffusion.config_class.from_pretrained(folder)
    model = UniDiffForBlockDiffusion.from_pretrained(None, config=config, state_dict=weights)
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])


def test_missing_weights_and_other_shapes_are_refused(folder: Path) -> None:
    path, config = folder / "model.safetensors", folder / "config.json"
    whole = load_file(path)
    lost = [name for name in whole if name.startswith("model.layers.0.mlp")]
    save_file({k: v for k, v in whole.items() if k not in lost}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks the weights model\.layers\.0\.mlp"):
        UniDiffForBlockDiffusion.from_pretrained(folder)
    save_file(whole, path, {"format": "pt"})
    _, report = UniDiffForBlockDiffusion.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "intermediate_size": 8}))
    with pytest.raises(ValueError, match="other shapes than its config"):
        UniDiffForBlockDiffusion.from_pretrained(folder)
