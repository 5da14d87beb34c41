"""The bundled checkpoint, and a way to run commands on it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unidiff.bundled import bundled_checkpoint
from unidiff.cli.app import app
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor


@pytest.fixture(scope="session")
def processor():
    return UniDiffProcessor.from_pretrained(bundled_checkpoint())


@pytest.fixture(scope="session")
def model():
    """The bundled checkpoint, on one thread."""
    torch.set_num_threads(1)
    folder = bundled_checkpoint()
    return UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def run_command():
    """Runs a command line; `report` is its stdout as JSON where it asked for that."""

    def run(*arguments):
        line = [str(argument) for argument in arguments]
        result = CliRunner().invoke(app, line)
        wants_json = "--json" in line and result.exit_code == 0
        return SimpleNamespace(
            code=result.exit_code,
            out=result.stdout,
            err=result.stderr,
            report=json.loads(result.stdout) if wants_json else None,
        )

    return run


@pytest.fixture
def picture(tmp_path):
    """A colourful picture that is no square, 40 x 24."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path
