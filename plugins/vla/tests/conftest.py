"""A tiny environment with an expert, in numpy alone, and a data set recorded from it."""

from types import SimpleNamespace

import numpy as np
import pytest
from unidiff_vla.lerobot_dataset import DatasetWriter
from unidiff_vla.recording import features_of, record_demonstrations


class Line:
    """A point on a line is to come to rest at 0. Seeds that end in 4 never succeed."""

    action_space = SimpleNamespace(shape=(2,), low=np.array([-1.0, -1.0]), high=np.ones(2))
    recording_noise = np.array([0.2, 0.0])

    def __init__(self):
        self.num_resets = 0
        self.executed = []

    def reset(self, *, seed=None, options=None):
        self.num_resets += 1
        self.seed, self.num_steps = seed, 0
        self.place = float(np.random.default_rng(seed).uniform(2.0, 3.0))
        return self.observe(), {"success": False}

    def step(self, action):
        self.executed.append(np.array(action))
        self.place += 0.5 * float(action[0])
        self.num_steps += 1
        success = abs(self.place) < 0.3 and self.seed % 10 != 4
        return self.observe(), float(success), success, self.num_steps >= 30, {"success": success}

    def observe(self):
        image = np.full((4, 6, 3), int(40 * abs(self.place)) % 256, dtype=np.uint8)
        state = np.array([self.place], dtype=np.float32)
        return {"image": image, "state": state, "instruction": f"go to zero {self.seed % 2}"}

    def expert(self):
        return lambda: np.array([-np.clip(self.place, -1, 1), 0.25])

    def close(self):
        pass


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def new_writer(tmp_path, line):
    """Makes a writer for the line's frames; the same name resumes."""

    def make(name="set", **settings):
        return DatasetWriter(tmp_path / name, features_of(line), fps=10, settings=settings)

    return make


@pytest.fixture
def dataset(new_writer, line):
    """The folder of a data set of six episodes; one attempt failed."""
    writer = new_writer()
    record_demonstrations(line, writer, "line", 6)
    return writer.finish()
