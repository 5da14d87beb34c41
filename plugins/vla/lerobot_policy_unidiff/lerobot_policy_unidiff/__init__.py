"""UniDiff as a policy of lerobot, by its convention for third parties.

lerobot imports this package where it is installed; importing it makes `--policy.type=unidiff` and
`--env.type=unidiff_vla` known. lerobot then finds the policy and its processors by their names.
"""

from .configuration_unidiff import UniDiffVLAConfig
from .environment import InstructedEnvConfig

__all__ = ["InstructedEnvConfig", "UniDiffVLAConfig"]
