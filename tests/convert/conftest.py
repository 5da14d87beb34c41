"""A model that knows pictures, and its picture tokenizer: loaded from a test file's `folders`."""

from pathlib import Path

import pytest
import torch

from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor


@pytest.fixture(scope="module")
def processor(folders: tuple[Path, Path]) -> UniDiffProcessor:
    """The processor of the model with the picture tokenizer."""
    return UniDiffProcessor.from_pretrained(folders[0], image_tokenizer=folders[1])


@pytest.fixture(scope="module")
def model(folders: tuple[Path, Path]) -> UniDiffForBlockDiffusion:
    """The model, converted while it is read."""
    return UniDiffForBlockDiffusion.from_pretrained(folders[0], dtype=torch.float32)
