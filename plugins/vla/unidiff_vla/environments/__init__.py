"""Simulated environments told in words, with gymnasium's interface.

Importing this registers them: `gymnasium.make("unidiff_vla/MetaWorld-reach-v0", split="test")`.
The classes themselves are in `tabletop_env`, `metaworld_env` and `pusht_env`, which import
gymnasium.
"""

from .actions import bounds_of, checked_action
from .instructions import METAWORLD_TASKS, WORDINGS, choose_instruction, instructions_of
from .layouts import SPLITS, LayoutSampler, split_of
from .naming import SHORT_NAMES, EnvironmentName, find_environment, make_environment
from .protocol import ExpertEnv, InstructedEnv, check_environment, pictures_of
from .registration import PUSHT_TASKS, environment_id, register_environments

register_environments()

__all__ = [
    "METAWORLD_TASKS",
    "PUSHT_TASKS",
    "SHORT_NAMES",
    "SPLITS",
    "WORDINGS",
    "EnvironmentName",
    "ExpertEnv",
    "InstructedEnv",
    "LayoutSampler",
    "bounds_of",
    "check_environment",
    "checked_action",
    "choose_instruction",
    "environment_id",
    "find_environment",
    "instructions_of",
    "make_environment",
    "pictures_of",
    "register_environments",
    "split_of",
]
