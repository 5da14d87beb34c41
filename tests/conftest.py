"""What every test relies on: one CPU thread, no network, the repository on the path."""

import os
import sys
from pathlib import Path

# Set before transformers or datasets is imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# At the end: the installed packages win over folders of this repository with the same name.
sys.path.append(str(ROOT))

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """Folder that holds pyproject.toml."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
