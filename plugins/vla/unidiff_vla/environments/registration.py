"""Makes the environments known to gymnasium; imports no simulator."""

import importlib.util

from .instructions import METAWORLD_TASKS

NAMESPACE = "unidiff_vla"


def environment_id(task: str) -> str:
    """The name that `gymnasium.make` knows a task by.

    Raises:
        ValueError: if the task is unknown.
    """
    if task == "pusht":
        return f"{NAMESPACE}/PushT-v0"
    if task not in METAWORLD_TASKS:
        raise ValueError(f"task must be one of {(*METAWORLD_TASKS, 'pusht')}; got {task=}")
    return f"{NAMESPACE}/MetaWorld-{task}-v0"


def register_environments() -> None:
    """Register every environment, once; does nothing where gymnasium is not installed."""
    if importlib.util.find_spec("gymnasium") is None:
        return
    import gymnasium

    for task in (*METAWORLD_TASKS, "pusht"):
        name = environment_id(task)
        if name in gymnasium.registry:
            continue
        if task == "pusht":
            gymnasium.register(name, entry_point=f"{__package__}.pusht_env:PushTEnv")
        else:
            gymnasium.register(
                name,
                entry_point=f"{__package__}.metaworld_env:MetaWorldEnv",
                kwargs={"task": task},
            )
