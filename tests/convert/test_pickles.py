"""Weights in pickles: read with leave only, tensors only, and never half."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.cli.app import ERROR_EXIT, app
from unidiff.convert.writing import convert_checkpoint, export_checkpoint

from .published import TABLE, write_json

SDAR = next(one for one in TABLE if one.name == "sdar")
SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


class Bomb:
    """What runs when a pickle is read without care."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("code of a pickle ran",))


def pickled(folder: Path, num_files: int = 1, name: str = "pytorch_model.bin") -> Path:
    """A checkpoint whose weights are pickles; returns the folder."""
    SDAR.write(folder, SDAR.model())
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if num_files == 1:
        torch.save(weights, folder / name)
        return folder
    places = {key: SHARDS[n % 2] for n, key in enumerate(sorted(weights))}
    for shard in SHARDS:
        torch.save({k: w for k, w in weights.items() if places[k] == shard}, folder / shard)
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": places})
    return folder


@pytest.mark.parametrize(("num_files", "name"), [(1, "pytorch_model.bin"), (1, "ours.pt"), (2, "")])
def test_pickles_are_the_same_model_with_leave(num_files: int, name: str, tmp_path: Path) -> None:
    folder = pickled(tmp_path / "foreign", num_files, name)
    (folder / "training_args.bin").write_bytes(b"a Trainer's")
    model = UniDiffForBlockDiffusion.from_pretrained(
        folder, use_safetensors=False, dtype=torch.float32
    )
    expected = SDAR.model()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            model(ids).logits, SDAR.logits(expected, ids), rtol=1e-5, atol=1e-5
        )
    UniDiffProcessor.from_pretrained(folder, use_safetensors=False)
    native = convert_checkpoint(folder, tmp_path / "native", allow_pickle=True)
    back = export_checkpoint(native, tmp_path / "back")
    assert [path.name for path in [*back.glob("*.bin*"), *back.glob("*.pt")]] == [
        "training_args.bin"
    ]
    again = UniDiffForBlockDiffusion.from_pretrained(back, dtype=torch.float32)
    assert torch.equal(again.lm_head.weight, expected.lm_head.weight)


@pytest.mark.parametrize("num_files", [1, 2])
def test_pickles_are_refused_by_name_without_leave(num_files: int, tmp_path: Path) -> None:
    folder = pickled(tmp_path / "foreign", num_files)
    words = r"weights in pickles \(pytorch_model.*use_safetensors=False.*--allow-pickle"
    for load in (UniDiffForBlockDiffusion.from_pretrained, UniDiffProcessor.from_pretrained):
        with pytest.raises(ValueError, match=words):
            load(folder)
    given = ["convert", str(folder), str(tmp_path / "native")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == ERROR_EXIT
    assert "--allow-pickle" in result.stderr
    assert CliRunner().invoke(app, [*given, "--allow-pickle"]).exit_code == 0


def test_our_own_format_needs_leave_as_well(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "foreign")
    native = convert_checkpoint(folder, tmp_path / "native", allow_pickle=True)
    torch.save(load_file(native / "model.safetensors"), native / "pytorch_model.bin")
    (native / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="weights in pickles"):
        UniDiffForBlockDiffusion.from_pretrained(native)
    model = UniDiffForBlockDiffusion.from_pretrained(native, use_safetensors=False)
    assert torch.equal(model.lm_head.weight.float(), SDAR.model().lm_head.weight)


def test_safetensors_come_first(tmp_path: Path) -> None:
    folder = SDAR.write(tmp_path / "foreign", SDAR.model())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    UniDiffForBlockDiffusion.from_pretrained(folder)
    UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_with_code_is_refused_even_with_leave(legacy: bool, tmp_path: Path) -> None:
    folder = pickled(tmp_path / "foreign")
    torch.save(
        {"a": Bomb()}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(ValueError, match=r"pytorch_model\.bin holds more than tensors"):
        UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_pickle_cut_short_is_named(share: float, tmp_path: Path) -> None:
    folder = pickled(tmp_path / "foreign", 2)
    content = (folder / SHARDS[1]).read_bytes()
    (folder / SHARDS[1]).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=SHARDS[1]):
        UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)
    (folder / SHARDS[1]).unlink()
    with pytest.raises(FileNotFoundError, match=SHARDS[1]):
        UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)


def test_a_wrapped_dictionary_is_opened_and_other_contents_are_not(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "foreign", name="last.ckpt.pt")
    path = folder / "last.ckpt.pt"
    weights = torch.load(path, weights_only=True)
    torch.save({"state_dict": weights, "epoch": 3}, path)
    UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)
    torch.save({**weights, "epoch": 3}, path)
    with pytest.raises(ValueError, match="holds more than tensors: epoch"):
        UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="must hold tensors by name, got list"):
        UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)
    torch.save(weights, folder / "other.pt")
    with pytest.raises(ValueError, match=r"last\.ckpt\.pt, other\.pt and no pytorch_model"):
        UniDiffForBlockDiffusion.from_pretrained(folder, use_safetensors=False)


@pytest.mark.parametrize("name", ["pytorch_model-00001-of-00001.bin", "qwen-half.pt"])
def test_what_one_pickle_became_loads_again(name: str, tmp_path: Path) -> None:
    folder = pickled(tmp_path / "foreign", name=name)
    if "of" in name:
        weights = torch.load(folder / name, weights_only=True)
        write_json(
            folder / "pytorch_model.bin.index.json", {"weight_map": dict.fromkeys(weights, name)}
        )
    native = convert_checkpoint(folder, tmp_path / "native", allow_pickle=True)
    back = export_checkpoint(native, tmp_path / "back")
    found = UniDiffForBlockDiffusion.from_pretrained(back, dtype=torch.float32)
    assert torch.equal(found.lm_head.weight, SDAR.model().lm_head.weight)
