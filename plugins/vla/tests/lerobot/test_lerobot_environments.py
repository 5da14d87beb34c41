"""Our environments under lerobot's names, and lerobot's own PushT under our policy."""

import json

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="lerobot is absent: run `make test-lerobot`")

from lerobot.envs.factory import make_env
from lerobot.envs.utils import add_envs_task, env_to_policy_features, preprocess_observation
from lerobot_policy_unidiff import InstructedEnvConfig
from lerobot_policy_unidiff.environment import InstructedEnv
from unidiff_vla.lerobot_dataset import DatasetWriter
from unidiff_vla.recording import features_of, record_demonstrations


@pytest.mark.parametrize("task", ["tabletop-push", "pusht"])
def test_lerobot_sees_pictures_states_and_instructions(task):
    config = InstructedEnvConfig(task=task)
    vector = make_env(config, n_envs=2)["unidiff_vla"][0]
    observation, _ = vector.reset(seed=[1, 2])
    batch = add_envs_task(vector, preprocess_observation(observation))
    features = env_to_policy_features(config)
    for name in ("observation.image", "observation.state"):
        assert tuple(batch[name].shape[1:]) == features[name].shape
    assert all(len(told.split()) > 2 for told in batch["task"])
    assert vector.call("_max_episode_steps")[0] > 10
    vector.close()


def test_success_ends_an_episode_and_is_told():
    from unidiff.data.sources.tabletop_expert import expert_action

    env = InstructedEnv("tabletop-reach")
    env.reset(seed=3)
    ended, info = False, {}
    while not ended:
        _, reward, ended, late, info = env.step(np.array(expert_action(env._env.table)))
        assert not late
    assert info["is_success"]
    assert reward == 1.0


def test_splits_have_other_tables():
    tables = [
        InstructedEnv("tabletop-reach", split).reset(seed=3)[0] for split in ("train", "test")
    ]
    assert not np.array_equal(tables[0]["pixels"], tables[1]["pixels"])


class AbsolutePushT:
    """Our PushT and its expert with the actions of gym-pusht: places on the table, in pixels."""

    recording_noise = np.zeros(2)

    def __init__(self):
        from gymnasium import spaces
        from unidiff_vla.environments.pusht_env import REACH, TABLE, PushTEnv

        self.env, self.reach, self.table = PushTEnv(image_size=96), REACH, TABLE
        self.action_space = spaces.Box(0.0, TABLE, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed, options=options)

    def step(self, action):
        return self.env.step((action - self.env._state()) / self.reach)

    def expert(self):
        own = self.env.expert()
        return lambda: np.clip(self.env._state() + self.reach * own(), 0.0, self.table)


def test_lerobots_pusht_is_learnt_from_and_run(command, tmp_path):
    env = AbsolutePushT()
    writer = DatasetWriter(tmp_path / "pusht", features_of(env), fps=10)
    record_demonstrations(env, writer, "pusht", 1)
    writer.finish()
    command(
        "lerobot-train",
        "--policy.type=unidiff",
        "--policy.device=cpu",
        "--policy.image_size=32",
        "--policy.instruction=push the T onto its outline",
        "--dataset.repo_id=unidiff/pusht",
        f"--dataset.root={tmp_path / 'pusht'}",
        "--steps=2",
        "--batch_size=2",
        "--num_workers=0",
        f"--output_dir={tmp_path / 'run'}",
    )
    command(
        "lerobot-eval",
        f"--policy.path={tmp_path / 'run' / 'checkpoints' / 'last' / 'pretrained_model'}",
        "--policy.device=cpu",
        "--env.type=pusht",
        "--env.episode_length=20",
        "--eval.n_episodes=2",
        "--eval.batch_size=2",
        f"--output_dir={tmp_path / 'eval'}",
    )
    overall = json.loads((tmp_path / "eval" / "eval_info.json").read_text())["overall"]
    assert overall["n_episodes"] == 2
