"""A tiny recorded data set and a whole run on it, made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from unidiff_vla.environments.instructions import instructions_of
from unidiff_vla.lerobot_dataset import DatasetWriter, Feature, image_feature
from unidiff_vla.training import train_policy
from unidiff_vla.training.codes import CODES_FILE, TOKENIZER_FOLDER

from .tiny_run import CAMERAS, TASKS, TINY


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine episodes of five frames, each task in three wordings."""
    folder = tmp_path_factory.mktemp("recorded") / "set"
    features = {f"observation.images.{camera}": image_feature(16, 16) for camera in CAMERAS}
    features |= {"observation.state": Feature("float32", (3,)), "action": Feature("float32", (2,))}
    writer = DatasetWriter(folder, features, fps=10)
    rng = np.random.default_rng(0)
    for number in range(9):
        frames = {
            f"observation.images.{camera}": rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
            for camera in CAMERAS
        }
        frames["observation.state"] = rng.normal(size=(5, 3)).astype(np.float32)
        frames["action"] = rng.uniform(-1, 1, size=(5, 2)).astype(np.float32)
        told = instructions_of(TASKS[number % 3])[number // 3]
        writer.add_episode(f"episode-{number}", frames, told)
    writer.finish()
    return folder


@pytest.fixture(scope="session")
def run(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "whole"
    train_policy([recorded], folder, TINY, note=lambda text: None)
    return folder


@pytest.fixture(scope="session")
def coded_run(run: Path) -> Callable[[Path], Path]:
    """Makes a folder in which a run finds the pictures coded already."""

    def folder(own: Path) -> Path:
        own.mkdir()
        shutil.copy(run / CODES_FILE, own)
        shutil.copytree(run / TOKENIZER_FOLDER, own / TOKENIZER_FOLDER)
        return own

    return folder
