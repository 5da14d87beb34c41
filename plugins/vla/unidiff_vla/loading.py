"""The policy of a checkpoint, and which checkpoint an environment has where none is named."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unidiff.bundled import bundled_checkpoint
from unidiff.cli.options import ModelChoice
from unidiff.cli.session import open_session

from .environments import EnvironmentName, InstructedEnv, find_environment, make_environment
from .policy import (
    ActionRegressor,
    ChunkPolicy,
    MaskedDiffusionPolicy,
    PolicySettings,
    RegressionPolicy,
)
from .policy.chunk_policy import kind_of_weights

logger = logging.getLogger(__name__)

METAWORLD_SIX = (
    *("metaworld-reach", "metaworld-push", "metaworld-drawer-open"),
    *("metaworld-drawer-close", "metaworld-button-press-topdown", "metaworld-window-open"),
)
METAWORLD_CHECKPOINT = Path(__file__).parent / "checkpoints" / "metaworld"
_OF_SINGLE_ROBOTS = ("ensemble_decay", "inference_delay", "warm_start")


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy and where it came from.

    Attributes:
        policy: ready to plan.
        folder: of the checkpoint or adapter.
    """

    policy: ChunkPolicy
    folder: Path


def ships_weights(env: EnvironmentName) -> bool:
    """Whether this package or `unidiff` brings weights for an environment."""
    return env.is_tabletop or (env.name in METAWORLD_SIX and METAWORLD_CHECKPOINT.is_dir())


def default_checkpoint(env: EnvironmentName) -> Path:
    """The folder of the weights that come with an environment.

    Raises:
        ValueError: if none do.
    """
    if not ships_weights(env):
        raise ValueError(
            f"no weights for {env.name} come with this version: give --checkpoint the folder of a "
            "checkpoint trained on it, or of an adapter that `unidiff finetune --task vla --data "
            "FOLDER` made from its demonstrations"
        )
    return bundled_checkpoint() if env.is_tabletop else METAWORLD_CHECKPOINT


def policy_for(
    env: str,
    choice: ModelChoice,
    change: Callable[[PolicySettings], PolicySettings] = lambda settings: settings,
) -> LoadedPolicy:
    """The policy that drives an environment.

    Args:
        env: name of the environment, see `find_environment`.
        choice: which folder, None in it: `default_checkpoint`; and where it runs.
        change: what is to differ from the folder's `policy.json`, or from the defaults.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if there are no weights, they know no actions, or settings do not fit.
    """
    folder = choice.checkpoint or default_checkpoint(find_environment(env))
    settings = change(PolicySettings.load(folder))
    ignored = [name for name in _OF_SINGLE_ROBOTS if getattr(settings, name)]
    if ignored:
        logger.warning("ignored where episodes are driven side by side: %s", ", ".join(ignored))
    if (folder / "config.json").is_file() and kind_of_weights(folder) == ActionRegressor.__name__:
        return LoadedPolicy(RegressionPolicy.from_pretrained(folder, settings), folder)
    session = open_session(ModelChoice(folder, choice.device))
    return LoadedPolicy(MaskedDiffusionPolicy(session.model, session.processor, settings), folder)


def environment_for(policy: ChunkPolicy, chosen: EnvironmentName, split: str) -> InstructedEnv:
    """An environment that shows what a policy sees: its cameras, at the size of its pictures.

    Raises:
        ValueError, ImportError: as `make_environment`.
    """
    height, width = policy.encoder.image_size
    size = height if height == width else None  # ours have square ones alone
    return make_environment(chosen, split, policy.settings.cameras, size)


def check_same_actions(policy: ChunkPolicy, env: Any, name: str) -> None:
    """Raise ValueError if a policy's actions have other dimensions than an environment's."""
    (dim,) = env.action_space.shape
    if dim != policy.dof:
        raise ValueError(
            f"an action of {name} has {dim} dimensions and the checkpoint plans {policy.dof}: give "
            "--checkpoint a folder that was trained on it"
        )
