"""A tiny data set of the table, lerobot's own commands in this process, a policy trained by them.

    make test-lerobot

lerobot runs in an environment of its own (`environment/`); everywhere else these tests are skipped.
"""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from unidiff_vla.lerobot_dataset import DatasetWriter
from unidiff_vla.recording import features_of, record_demonstrations

from unidiff.data.sources.tabletop import TabletopEnv
from unidiff.data.sources.tabletop_expert import expert_action

torch.set_num_threads(1)


class Table(TabletopEnv):
    """The table with its expert, as the recorder wants it."""

    recording_noise = np.array([0.2, 0.2])

    def expert(self):
        return lambda: np.array(expert_action(self.table))


@pytest.fixture(scope="session")
def table_dataset(tmp_path_factory):
    """Folder of three demonstrations of reaching on the table."""
    env = Table("reach")
    writer = DatasetWriter(tmp_path_factory.mktemp("data") / "table", features_of(env), fps=10)
    record_demonstrations(env, writer, "reach", 3)
    return writer.finish()


@pytest.fixture(scope="session")
def command():
    """Runs one of lerobot's commands as its console script does, in this process."""
    from lerobot.scripts import lerobot_eval, lerobot_train

    mains = {"lerobot-train": lerobot_train.main, "lerobot-eval": lerobot_eval.main}

    def run(name, *arguments):
        before = sys.argv
        sys.argv = [name, *map(str, arguments)]
        try:
            mains[name]()
        finally:
            sys.argv = before

    return run


@pytest.fixture(scope="session")
def trained(command, table_dataset, tmp_path_factory):
    """Output folder of four steps of `lerobot-train`, saved after two and four."""
    folder = tmp_path_factory.mktemp("runs") / "table"
    command(
        "lerobot-train",
        "--policy.type=unidiff",
        "--policy.device=cpu",
        "--dataset.repo_id=unidiff/table",
        f"--dataset.root={table_dataset}",
        "--steps=4",
        "--batch_size=2",
        "--save_freq=2",
        "--num_workers=0",
        f"--output_dir={folder}",
    )
    return folder


@pytest.fixture(scope="session")
def config_of():
    """Makes a policy's configuration: pictures of a size, states, actions."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot_policy_unidiff import UniDiffVLAConfig

    def make(cameras=("image",), size=(32, 32), state=2, action=2, **options):
        inputs = {
            f"observation.{name}": PolicyFeature(FeatureType.VISUAL, (3, *size)) for name in cameras
        }
        if state:
            inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (state,))
        outputs = {"action": PolicyFeature(FeatureType.ACTION, (action,))}
        return UniDiffVLAConfig(
            input_features=inputs, output_features=outputs, device="cpu", **options
        )

    return make


@pytest.fixture(scope="session")
def statistics_of():
    """Statistics of states in [0, 1] and actions in [-2, 2] of the given dimensions."""

    def make(state=2, action=2):
        sizes = {"observation.state": (0.0, 1.0, state), "action": (-2.0, 2.0, action)}
        return {
            name: {
                **dict.fromkeys(("q01", "min"), np.full(dim, low)),
                **dict.fromkeys(("q99", "max"), np.full(dim, high)),
            }
            for name, (low, high, dim) in sizes.items()
        }

    return make


@pytest.fixture(scope="session")
def policy_of(config_of):
    """Makes a policy that was not trained by lerobot."""
    from lerobot_policy_unidiff.modeling_unidiff import UniDiffVLAPolicy

    def make(dataset_stats=None, **options):
        return UniDiffVLAPolicy(config_of(**options), dataset_stats=dataset_stats).eval()

    return make


@pytest.fixture(scope="session")
def policy(policy_of):
    """The bundled checkpoint as a policy, with its own bins."""
    return policy_of(n_action_steps=3)


@pytest.fixture
def batch():
    """A training batch of two rows as lerobot makes them."""
    rng = np.random.default_rng(0)
    return {
        "observation.image": torch.from_numpy(rng.random((2, 3, 32, 32), dtype=np.float32)),
        "observation.state": torch.tensor([[0.3, 0.4], [0.5, 0.6]]),
        "task": ["reach the red target", "go to the blue disc"],
        "action": torch.from_numpy(rng.uniform(-1, 1, (2, 8, 2)).astype(np.float32)),
        "action_is_pad": torch.zeros(2, 8, dtype=torch.bool),
        "index": torch.tensor([5, 9]),
    }
