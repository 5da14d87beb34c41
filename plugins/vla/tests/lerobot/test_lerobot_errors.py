"""What a user reads when data set, checkpoint, environment and options do not fit."""

import pytest
import torch

pytest.importorskip("lerobot", reason="lerobot is absent: run `make test-lerobot`")

from lerobot_policy_unidiff import InstructedEnvConfig
from lerobot_policy_unidiff.modeling_unidiff import UniDiffVLAPolicy

from unidiff.bundled import bundled_checkpoint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chunk_size": 16}, r"checkpoint's horizon, 8; got 16: pass --policy.chunk_size=8"),
        ({"action": 4}, r"'action': 2.*'action': 4"),
        ({"state": None}, r"'observation.state': 2.*'observation.state': None"),
        (
            {"size": (64, 64)},
            r"\(32, 32\) for this .*; got \(64, 64\).*--policy.image_size",
        ),
    ],
)
def test_a_checkpoint_must_fit(policy_of, statistics_of, options, says):
    with pytest.raises(ValueError, match=says):
        policy_of(statistics_of(), checkpoint=str(bundled_checkpoint()), **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_action_steps": 9}, "n_action_steps must lie in"),
        ({"n_obs_steps": 2}, "n_obs_steps must be 1"),
        ({"bin_statistics": "q10"}, "bin_statistics must be one of"),
        ({"normalization_mapping": {"ACTION": "MEAN_STD"}}, "IDENTITY throughout"),
        ({"cameras": ()}, "needs a camera"),
        ({"size": (30, 30)}, "multiples of 4"),
        ({"size": (384, 384)}, "--policy.image_size=64"),
        ({"size": (30, 30), "image_size": 30}, "multiples of 4"),
        ({"action": 3}, "statistics of a data set are missing"),
        ({"chunk_size": 4, "n_action_steps": 4}, "statistics of a data set are missing"),
        ({"checkpoint": "/nowhere"}, "no UniDiff checkpoint"),
    ],
)
def test_options_that_cannot_be(policy_of, options, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        policy_of(**options)


def test_missing_statistics_are_named(policy_of, statistics_of):
    statistics = statistics_of()
    del statistics["action"]["q99"]
    with pytest.raises(ValueError, match=r"'action'; missing are \['q99'\].*min_max"):
        policy_of(statistics)
    with pytest.raises(ValueError, match="must have 2 values; got 3"):
        policy_of(statistics_of(action=3))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"observation.image": None}, r"missing are \['observation.image'\]"),
        ({"observation.state": None}, r"missing are \['observation.state'\]"),
        ({"observation.image": torch.zeros(2, 3, 16, 16)}, r"must be \(B, 3, 32, 32\)"),
        ({"observation.image": torch.full((2, 3, 32, 32), 2.0)}, r"numbers in \[0, 1\]"),
        ({"observation.image": torch.full((2, 3, 32, 32), torch.nan)}, r"numbers in \[0, 1\]"),
        ({"observation.state": torch.full((2, 2), torch.nan)}, "state must be finite"),
        ({"task": ["", ""]}, "--policy.instruction"),
        ({"task": None}, "--policy.instruction"),
    ],
)
def test_a_batch_must_fit(policy, batch, changes, says):
    batch = {name: value for name, value in {**batch, **changes}.items() if value is not None}
    policy.reset()
    with pytest.raises(ValueError, match=says):
        policy.select_action(batch)


def test_actions_that_are_not_finite_are_refused_in_training(policy, batch):
    batch["action"][0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="finite"):
        policy.forward(batch)


def test_a_folder_of_another_policy_is_refused(config_of, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no folder unidiff"):
        UniDiffVLAPolicy.from_pretrained(tmp_path, config=config_of())


def test_a_saved_policy_keeps_its_chunk_size(policy, config_of, tmp_path):
    policy.save_pretrained(tmp_path)
    config = config_of(chunk_size=4, n_action_steps=4)
    with pytest.raises(ValueError, match=r"--policy\.chunk_size=8"):
        UniDiffVLAPolicy.from_pretrained(tmp_path, config=config)


def test_unknown_tasks_are_refused():
    with pytest.raises(ValueError, match=r"--env\.task must be one of"):
        InstructedEnvConfig(task="fly")
