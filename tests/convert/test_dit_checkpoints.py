"""What is particular to MDLM's and BD3-LM's files: one tensor of three, a tokenizer elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert.loading import open_foreign, processor_of
from unidiff.convert.writing import convert_checkpoint, export_checkpoint

from .published import WIDTH, write_json, write_tokenizer
from .published_dit import CONDITION, DIT_TABLE

MDLM, BD3LM = DIT_TABLE
QKV = "backbone.blocks.0.attn_qkv.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return BD3LM.write(tmp_path / "foreign", BD3LM.model())


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text()), **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"time_conditioning": True}, "time_conditioning = True"),
        ({"cross_attn": False}, "cross_attn = False"),
        ({"adaln": False}, "adaln = False"),
        ({"causal": True}, "causal = True"),
        ({"n_blocks": 3}, r"model\.layers\.2\..* missing"),
        ({"vocab_size": 400}, "the mask id 399 lies outside the 320 rows"),
        ({"hidden_dim": 16}, rf"attn_qkv.*16 \+ 16 \+ 16 rows, got {3 * WIDTH}"),
    ],
)
def test_what_cannot_be_is_named(folder: Path, fields: dict[str, object], words: str) -> None:
    change(folder, **fields)
    with pytest.raises(ValueError, match=words):
        UniDiffForBlockDiffusion.from_pretrained(folder)


def test_the_condition_is_as_wide_as_the_weights_say(folder: Path) -> None:
    assert json.loads((folder / "config.json").read_text())["cond_dim"] != CONDITION
    assert open_foreign(folder).config.modulation_dim == CONDITION


def test_a_tensor_of_three_is_exported_with_what_was_trained(folder: Path, tmp_path: Path) -> None:
    native = convert_checkpoint(folder, tmp_path / "native")
    model = UniDiffForBlockDiffusion.from_pretrained(native, dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.weight.add_(1)
    model.save_pretrained(native)
    back = load_file(export_checkpoint(native, tmp_path / "back") / "model.safetensors")
    before = load_file(folder / "model.safetensors")
    assert {name for name in before if not torch.equal(back[name], before[name])} == {QKV}
    moved = (back[QKV] != before[QKV]).all(1)
    assert moved.tolist() == [False] * WIDTH + [True] * WIDTH + [False] * WIDTH


def test_a_tensor_of_three_that_lacks_one_is_not_exported(folder: Path, tmp_path: Path) -> None:
    native = convert_checkpoint(folder, tmp_path / "native")
    weights = load_file(native / "model.safetensors")
    del weights["model.layers.0.self_attn.v_proj.weight"]
    save_file(weights, native / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks what \['backbone\.blocks\.0\.attn_qkv\.weight'\]"):
        export_checkpoint(native, tmp_path / "back")


def without_tokenizer(folder: Path) -> Path:
    for path in [*folder.glob("*token*"), *folder.glob("*.jinja")]:
        path.unlink()
    return folder


def test_a_folder_without_tokenizer_reads_the_one_that_is_named(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "tokenizer"
    other.mkdir()
    write_tokenizer(other, names_mask=False)
    (other / "chat_template.jinja").unlink()
    opened = open_foreign(without_tokenizer(folder))
    opened = replace(opened, family=replace(opened.family, tokenizer=str(other)))
    processor = processor_of(opened)
    assert processor.decode(processor.tokenizer("a cat")["input_ids"]) == "a cat"


def test_a_tokenizer_that_is_nowhere_is_named(folder: Path, tmp_path: Path) -> None:
    without_tokenizer(folder)
    with pytest.raises(FileNotFoundError, match="has no tokenizer, and that of 'gpt2'"):
        UniDiffProcessor.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match="put its files into the folder"):
        convert_checkpoint(folder, tmp_path / "native")
    assert not (tmp_path / "native").exists()
    UniDiffForBlockDiffusion.from_pretrained(folder)  # which needs none


def test_text_is_continued_by_the_published_sampler(tmp_path: Path) -> None:
    folder = MDLM.write(tmp_path / "foreign", MDLM.model())
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    assert model.generation_config.unmasking_strategy == "first_hitting"
    found = model.generate(max_new_tokens=12, eos_token_id=-1, seed=3)
    assert found.shape == (1, 13)
    assert found[0, 0] == model.config.bos_token_id
    assert not (found == MDLM.mask).any()
