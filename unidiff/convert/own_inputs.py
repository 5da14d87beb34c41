"""What published classes must be given beside ids to read a plain row under their pattern.

For `unidiff verify`. Read off their `forward` and `generate`: JetAstra's `modeling_sdar.py`,
NVlabs' Fast-dLLM v2, dllm's a2d, inclusionAI's `modeling_llada2_moe.py`, kuleshov-group's
`modeling_mdlm.py` and `modeling_bd3lm.py`.
"""

# Shapes: L sequence.

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from unidiff.model.configuration import UniDiffConfig


def grid_of(length: int, config: UniDiffConfig) -> Tensor:
    """(L, L) bool, which position attends to which under a grid of blocks."""
    block = torch.arange(length) // config.canvas_length
    return block[:, None] >= block[None, :]


def sdar_inputs(length: int, config: UniDiffConfig) -> dict[str, Any]:
    """SDAR's class makes no mask: it takes one of 0 and 1 over the grid, positions and a cache."""
    return {
        "attention_mask": grid_of(length, config).float()[None],
        "position_ids": torch.arange(length)[None],
        "past_key_values": DynamicCache(),
        "use_cache": True,
        "store_kv": False,
    }


def fast_dllm_inputs(length: int, config: UniDiffConfig) -> dict[str, Any]:
    """Fast-dLLM v2's class makes the mask of a grid that it is told."""
    del length
    return {"block_size": config.canvas_length}


def grid_inputs(length: int, config: UniDiffConfig) -> dict[str, Any]:
    """A mask of 0 and -inf that is added to scores, where there is a grid; a2d's and LLaDA2's."""
    if config.attention_pattern == "full":
        return {}
    added = torch.zeros(1, 1, length, length).masked_fill(~grid_of(length, config), -torch.inf)
    return {"attention_mask": added, "position_ids": torch.arange(length)[None]}


def full_inputs(length: int, config: UniDiffConfig) -> dict[str, Any]:
    """A mask with which a causal class of transformers lets everybody attend to everybody."""
    del config
    return {"attention_mask": torch.zeros(1, 1, length, length)}


def mdlm_inputs(length: int, config: UniDiffConfig) -> dict[str, Any]:
    """Their class takes a noise level, which it ignores, and is asked for named outputs."""
    del length, config
    return {"timesteps": torch.zeros(1), "return_dict": True}


def bd3lm_inputs(length: int, config: UniDiffConfig) -> dict[str, Any]:
    """Without `sample_mode` their class takes the two streams of training and nothing else."""
    return {**mdlm_inputs(length, config), "sample_mode": True}
