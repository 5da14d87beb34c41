"""pytest plugins/vla/tests/training/test_start.py: what a run takes of another policy."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from unidiff_vla.training import assemble_policy
from unidiff_vla.training.codes import TOKENIZER_FOLDER
from unidiff_vla.training.start import begin_with

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.image import FSQImageTokenizer

from .tiny_run import SETTINGS

TABLE = "model.embed_tokens.weight"


@pytest.fixture
def start(run: Path, tmp_path: Path) -> Path:
    """A policy to begin with."""
    return assemble_policy(run, tmp_path / "start", SETTINGS, dtype=torch.float32)


def begun(start: Path, image_tokenizer: Path) -> tuple[str, dict, dict]:
    """(what was said, fresh weights, weights after the beginning)."""
    torch.manual_seed(1)
    model = UniDiffForBlockDiffusion(UniDiffConfig.from_pretrained(start))
    fresh = {name: weight.clone() for name, weight in model.state_dict().items()}
    return begin_with(model, start, image_tokenizer), fresh, model.state_dict()


def test_picture_codes_of_another_image_tokenizer_are_left(
    run: Path, start: Path, tmp_path: Path
) -> None:
    other = FSQImageTokenizer.from_pretrained(run / TOKENIZER_FOLDER)
    with torch.no_grad():
        next(other.encoder.parameters()).mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    said, fresh, own = begun(start, tmp_path / "other")
    stored = load_file(start / "model.safetensors")
    assert said.endswith("but nothing of picture codes: its image tokenizer is another one")
    ids = UniDiffConfig.from_pretrained(start).layout.range_of("image")
    is_picture = torch.zeros(len(own[TABLE]), dtype=torch.bool)
    is_picture[ids.start : ids.stop] = True
    assert torch.equal(own[TABLE][is_picture], fresh[TABLE][is_picture])
    assert torch.equal(own[TABLE][~is_picture], stored[TABLE][~is_picture])
    assert not torch.equal(stored[TABLE][is_picture], fresh[TABLE][is_picture])
    rest = [name for name in stored if name != TABLE]
    assert all(torch.equal(own[name], stored[name]) for name in rest)


def test_those_of_the_same_image_tokenizer_are_taken(run: Path, start: Path) -> None:
    said, _, own = begun(start, run / TOKENIZER_FOLDER)
    stored = load_file(start / "model.safetensors")
    assert said == f"{len(stored)} tensors of the start taken"
    assert all(torch.equal(own[name], weight) for name, weight in stored.items())


def test_a_start_without_image_tokenizer_says_so(run: Path, start: Path) -> None:
    shutil.rmtree(start / TOKENIZER_FOLDER)
    said, _, own = begun(start, run / TOKENIZER_FOLDER)
    assert "no image tokenizer to compare with" in said
    assert torch.equal(own[TABLE], load_file(start / "model.safetensors")[TABLE])
