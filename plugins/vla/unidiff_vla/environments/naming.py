"""Environments by the names that people type: a short one of ours, or any id of gymnasium's."""

from dataclasses import dataclass
from typing import Any

from .instructions import METAWORLD_TASKS
from .protocol import InstructedEnv, check_environment
from .registration import (
    NAMESPACE,
    PUSHT_TASKS,
    TABLETOP_TASKS,
    environment_id,
    register_environments,
)

METAWORLD = "metaworld-"
SHORT_NAMES = (
    *(f"tabletop-{task}" for task in TABLETOP_TASKS),
    *PUSHT_TASKS,
    f"{METAWORLD}<task>",
)


@dataclass(frozen=True)
class EnvironmentName:
    """An environment that was asked for.

    Attributes:
        name: as it was typed.
        id: gymnasium's.
    """

    name: str
    id: str

    @property
    def is_ours(self) -> bool:
        """Whether it knows splits, wordings and cameras."""
        return self.id.startswith(f"{NAMESPACE}/")

    @property
    def is_metaworld(self) -> bool:
        """Whether it is a task of Meta-World."""
        return self.id.startswith(f"{NAMESPACE}/MetaWorld-")

    @property
    def is_tabletop(self) -> bool:
        """Whether it is the robot table, which the bundled checkpoint knows."""
        return self.id.startswith(f"{NAMESPACE}/Tabletop-")


def find_environment(name: str) -> EnvironmentName:
    """The environment of a name.

    Args:
        name: one of `SHORT_NAMES`, or an id as `gymnasium.make` takes it, "Name-v0" or
            "package:Name-v0".

    Raises:
        ValueError: if it is neither.
    """
    if name.startswith(METAWORLD):
        task = name.removeprefix(METAWORLD)
        if task not in METAWORLD_TASKS:
            raise ValueError(f"Meta-World's tasks are {METAWORLD_TASKS}; got {name!r}")
        return EnvironmentName(name, environment_id(task))
    if name in SHORT_NAMES:
        return EnvironmentName(name, environment_id(name))
    if "/" not in name and ":" not in name and "-v" not in name:
        raise ValueError(
            f"environment must be one of {SHORT_NAMES}, or an id of gymnasium's such as "
            f"package:Name-v0; got {name!r}"
        )
    return EnvironmentName(name, name)


def make_environment(
    chosen: EnvironmentName,
    split: str,
    cameras: tuple[str, ...] | None = None,
    image_size: int | None = None,
) -> InstructedEnv:
    """The environment, tried out where it is not ours.

    Args:
        chosen: which one.
        split: of the layouts; read by our environments alone.
        cameras: that the policy sees; None: the environment's own. Read by ours alone.
        image_size: height and width of their pictures in pixels; None: the environment's own. Read
            by ours alone.

    Raises:
        ValueError: if gymnasium knows none of that id, it is no environment told in words, or one
            of ours has no such camera or size.
        ImportError: if the simulator is not installed.
    """
    import gymnasium

    register_environments()
    arguments: dict[str, Any] = {}
    if chosen.is_ours:
        given = {"split": split, "cameras": cameras, "image_size": image_size}
        arguments = {name: value for name, value in given.items() if value is not None}
    try:
        env = gymnasium.make(chosen.id, disable_env_checker=True, **arguments)
    except gymnasium.error.Error as error:
        raise ValueError(f"gymnasium cannot make {chosen.name!r}: {error}") from error
    if chosen.is_ours:
        ours: InstructedEnv = env.unwrapped
        return ours
    try:
        check_environment(env)
    except Exception as error:  # whatever a simulator raises
        raise ValueError(f"{chosen.name!r} cannot be driven by words: {error}") from error
    return env
