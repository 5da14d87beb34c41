"""Experts of Meta-World's tasks: its scripted policies, and for push one that can try again.

The scripted policies never open the gripper, for an episode begins with it open. Fingers that have
closed beside the puck then stay closed, come down on top of it and remain there, so whoever learns
from them cannot come back from a missed grasp.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .protocol import Expert

# The full state: hand x, y, z in metres, opening from 0.3 (closed on nothing) to 1, puck x, y, z.
_OPENING, _PUCK = 3, slice(4, 7)
_NEAR, _ABOVE = 0.02, 0.10  # m: within these of the puck the scripted policy closes the gripper
_OPEN = 0.9  # it goes down no further before the gripper is as open as this
# (opening, m above the puck): fingers that are closed further, and higher, do not hold it.
_EMPTY = ((0.36, 0.045), (0.6, 0.06), (0.9, 0.08))
_PUCK_OFFSET = np.array([-0.005, 0.0])  # m, where the scripted policy takes the puck


def expert_of(task: str, full_state: Callable[[], np.ndarray]) -> Expert:
    """The expert of a task.

    Args:
        task: such as "push".
        full_state: gives the simulator's present full state, (39,).
    """
    from metaworld.policies import ENV_POLICY_MAP

    policy = ENV_POLICY_MAP[f"{task}-v3"]()
    correct = _trying_again if task == "push" else _as_it_is

    def act() -> np.ndarray:
        """(4,) action for the present state, within the bounds."""
        state = full_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that its actions will be clipped
            return correct(np.clip(policy.get_action(state), -1.0, 1.0), state)

    return act


def _as_it_is(action: np.ndarray, state: np.ndarray) -> Any:
    """The scripted action."""
    del state
    return action


def _trying_again(action: np.ndarray, state: np.ndarray) -> Any:
    """The scripted action, except that fingers closed without the puck go up and open first.

    Source: own derivation; tests/test_metaworld_env.py, where the scripted policy fails every time.
    """
    opening, puck = state[_OPENING], state[_PUCK]
    height = state[2] - puck[2]
    away = np.linalg.norm(state[:2] - puck[:2] - _PUCK_OFFSET)
    is_off = away > _NEAR or height > _ABOVE
    is_on_top = any(opening < most and height > least for most, least in _EMPTY)
    if opening < _OPEN and (is_off or is_on_top):
        action[3] = -1.0
    if is_on_top and height < _ABOVE:
        action[:3] = 0.0, 0.0, 1.0
    elif opening < _OPEN and is_off and away < 3 * _NEAR:
        action[2] = max(action[2], 0.0)
    return action
