"""A tiny checkpoint with random weights, and a way to run commands on it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer
from typer.testing import CliRunner

from unidiff.cli.app import app
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.tokens.processor import UniDiffProcessor


@pytest.fixture(scope="session")
def tiny_image_tokenizer():
    torch.manual_seed(0)
    config = FSQImageTokenizerConfig(
        hidden_sizes=[8, 8], num_encoder_blocks=0, num_decoder_blocks=0, num_stage_blocks=0
    )
    return FSQImageTokenizer(config).eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, repository_root, tiny_image_tokenizer):
    """Folder of a model of 64 x 1 with random weights and the real text tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    processor = UniDiffProcessor(
        tokenizer=AutoTokenizer.from_pretrained(repository_root / "tokenizers" / "text"),
        image_model=tiny_image_tokenizer,
        action_bins=BinTokenizer((-1.0, -1.0), (1.0, 1.0), 256, horizon=8),
        state_bins=BinTokenizer((0.0, 0.0), (1.0, 1.0), 256),
    )
    layout = processor.layout
    torch.manual_seed(1)
    model = UniDiffForBlockDiffusion(
        UniDiffConfig(
            vocab_size=layout.num_ids,
            num_hidden_layers=1,
            canvas_length=8,
            token_layout=layout.to_dict(),
            mask_token_id=layout.mask_token_id,
            pad_token_id=layout.pad_token_id,
            bos_token_id=2,
            eos_token_id=layout.end_token_ids[0],
        )
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run_command(tiny_checkpoint):
    """Runs a command line; `report` is its stdout as JSON where it asked for that."""

    def run(*arguments, checkpoint: Path | None = tiny_checkpoint, stdin: str | None = None):
        chosen = [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
        line = [str(argument) for argument in arguments]
        result = CliRunner().invoke(app, [*line, *chosen], input=stdin)
        wants_json = "--json" in line and result.exit_code == 0
        return SimpleNamespace(
            code=result.exit_code,
            out=result.stdout,
            err=result.stderr,
            report=json.loads(result.stdout) if wants_json else None,
            exception=result.exception,
        )

    return run


@pytest.fixture
def picture(tmp_path):
    """A colourful picture that is no square, 40 x 24."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path
