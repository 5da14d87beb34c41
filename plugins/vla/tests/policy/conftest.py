"""The bundled checkpoint as a policy with any settings, and what it sees on the robot table."""

import copy

import pytest
import torch
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings

from unidiff.bundled import bundled_checkpoint
from unidiff.data.sources.tabletop import TabletopEnv
from unidiff.data.sources.tabletop_rollout import evaluation_seeds
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor


@pytest.fixture(scope="session")
def parts():
    """Model and processor, on one thread."""
    torch.set_num_threads(1)
    folder = bundled_checkpoint()
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    return model, UniDiffProcessor.from_pretrained(folder)


@pytest.fixture(scope="session")
def policy_with(parts):
    """A policy of the bundled checkpoint with the given settings."""
    return lambda **settings: MaskedDiffusionPolicy(*parts, PolicySettings(**settings))


@pytest.fixture(scope="session")
def policy(policy_with):
    return policy_with()


@pytest.fixture(scope="session")
def visible_policy_with(parts):
    """The same, as if the weights had been trained on visible tokens."""
    model = copy.deepcopy(parts[0])
    model.config.trained_on_visible = True
    return lambda **settings: MaskedDiffusionPolicy(model, parts[1], PolicySettings(**settings))


@pytest.fixture(scope="session")
def observations():
    """Of four unseen tables."""
    tables = zip(("reach", "push", "reach", "push"), evaluation_seeds(4), strict=True)
    return [TabletopEnv(task).reset(seed=seed)[0] for task, seed in tables]


@pytest.fixture(scope="session")
def drive():
    """Drives one table by `select_action`; says whether it succeeded and how often it planned."""

    def run(policy, task, seed, most_steps=1000):
        env = TabletopEnv(task)
        observation, info = env.reset(seed=seed)
        policy.reset()
        actions, is_over = [], False
        while not is_over and len(actions) < most_steps:
            actions.append(policy.select_action(observation))
            observation, _, success, late, info = env.step(actions[-1])
            is_over = success or late
        return info["success"], actions

    return run
