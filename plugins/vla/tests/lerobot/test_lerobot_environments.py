"""Our environments under lerobot's names, and lerobot's own PushT under our policy."""

import json

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="lerobot is absent: run `make test-lerobot`")

from lerobot.envs.factory import make_env
from lerobot.envs.utils import add_envs_task, env_to_policy_features, preprocess_observation
from lerobot_policy_unidiff import InstructedEnvConfig
from lerobot_policy_unidiff.environment import InstructedEnv
from unidiff_vla.lerobot_dataset import DatasetWriter, Feature, image_feature


@pytest.mark.parametrize("task", ["tabletop-push", "pusht", "pusht-pose"])
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


def pusht_dataset(folder):
    """Twenty frames of gym-pusht: pictures, the disc's place, and a place to go to, in pixels."""
    import gym_pusht  # noqa: F401, registers it
    import gymnasium

    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="pixels_agent_pos")
    rng = np.random.default_rng(0)
    seen, _ = env.reset(seed=0)
    frames = {"observation.image": [], "observation.state": [], "action": []}
    for _ in range(20):
        place = seen["agent_pos"].astype(np.float32)
        # All over the table: a policy refuses places that lie far outside those it learnt from.
        target = rng.uniform(0, 512, 2).astype(np.float32)
        for name, value in zip(frames, (seen["pixels"], place, target), strict=True):
            frames[name].append(value)
        seen, *_ = env.step(target)
    arrays = {name: np.stack(values) for name, values in frames.items()}
    pair = Feature("float32", (2,))
    features = {"observation.image": image_feature(96, 96), "observation.state": pair}
    writer = DatasetWriter(folder, {**features, "action": pair}, fps=10)
    writer.add_episode("walk", arrays, "push the T onto its outline")
    return writer.finish()


def test_lerobots_pusht_is_learnt_from_and_run(command, tmp_path):
    pusht_dataset(tmp_path / "pusht")
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
