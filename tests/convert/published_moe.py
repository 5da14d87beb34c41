"""Tiny random checkpoints of mixtures of experts, as others publish them.

References are transformers' own Qwen3-MoE, and for LLaDA2 its GLM-4-MoE, whose maths is the same:
sigmoid scores with a bias, groups, a shared expert, dense first layers, heads that turn in part.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from .published import (
    HEAD_DIM,
    HIDDEN,
    LAYERS,
    MASK,
    SPECIALS,
    THETA,
    Published,
    blocks_of,
    causal,
    full,
    sizes,
)

EXPERTS, CHOSEN, INNER = 8, 2, 16


@dataclass(frozen=True)
class PublishedMixture(Published):
    """A family whose files hold a tensor for each expert, or stacks of them.

    Attributes:
        joined: (tensors of one layer by name) -> those that are one in the files.
        is_stacked: whether the files hold one tensor per projection.
    """

    joined: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    is_stacked: bool = False

    def model(self, seed: int = 0) -> nn.Module:
        """The reference with random weights, and random biases of its experts."""
        model = super().model(seed)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                nn.init.normal_(buffer, 0.0, 0.5)
        return model

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights, experts apart from each other and gates from what they open."""
        made: dict[str, Tensor] = {}
        for name, weight in super().weights(model).items():
            if ".experts." not in name:
                made[name] = weight
                continue
            prefix, _, kind = name.rpartition(".")
            parts = {"down_proj": weight}
            if kind == "gate_up_proj":
                parts = dict(zip(("gate_proj", "up_proj"), weight.chunk(2, dim=1), strict=True))
            for part, stack in parts.items():
                if self.is_stacked:
                    made[f"{prefix}.{part}"] = stack.contiguous()
                    continue
                for number, expert in enumerate(stack):
                    made[f"{prefix}.{number}.{part}.weight"] = expert.contiguous()
        return self.joined(made)


def llada2_name(name: str) -> str:
    """GLM's name of a tensor as LLaDA2 has it."""
    for theirs, ours in {
        "embed_tokens": "word_embeddings",
        "self_attn.o_proj": "attention.dense",
        "self_attn.q_norm": "attention.query_layernorm",
        "self_attn.k_norm": "attention.key_layernorm",
        "e_score_correction_bias": "expert_bias",
    }.items():
        name = name.replace(theirs, ours)
    return name


def fused(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of each layer in one tensor, in this order."""
    made = {name: weight for name, weight in weights.items() if ".self_attn." not in name}
    for index in range(LAYERS):
        parts = [weights[f"model.layers.{index}.self_attn.{one}_proj.weight"] for one in "qkv"]
        made[f"model.layers.{index}.attention.query_key_value.weight"] = torch.cat(parts)
    return made


_EXPERTS = {
    "num_experts": EXPERTS,
    "num_experts_per_tok": CHOSEN,
    "moe_intermediate_size": INNER,
    "norm_topk_prob": True,
}
_SIZES = {"rope_parameters": THETA, "head_dim": HEAD_DIM}
_ONE_DENSE = {**_EXPERTS, "mlp_only_layers": [0]}
_LLADA2 = {
    **_EXPERTS,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "score_function": "sigmoid",
    "moe_router_enable_expert_bias": True,
    "use_bias": False,
    "use_qkv_bias": False,
    "use_qk_norm": False,
    "partial_rotary_factor": 0.5,
    "rotary_dim": HEAD_DIM // 2,
    "block_size": 8,
    "head_dim": HEAD_DIM,
}
_GLM = {
    **{name: _LLADA2[name] for name in (*_EXPERTS, "first_k_dense_replace")},
    **{name: _LLADA2[name] for name in ("n_group", "topk_group", "routed_scaling_factor")},
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "use_qk_norm": True,
    "head_dim": HEAD_DIM,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {**THETA, "partial_rotary_factor": 0.5},
}
_LLADA_MOE = {
    name: value for name, value in sizes(model_type="llada").items() if name != "intermediate_size"
}

MIXTURES = (
    PublishedMixture(
        "qwen3-moe",
        sizes(model_type="qwen3_moe", head_dim=HEAD_DIM, **_EXPERTS),
        (Qwen3MoeForCausalLM, Qwen3MoeConfig, {**_SIZES, **_EXPERTS}),
        causal,
        shift=1,
        mask=len(SPECIALS) + 256,
    ),
    PublishedMixture(
        "sdar-moe",
        sizes(model_type="sdar_moe", block_size=4, head_dim=HEAD_DIM, **_ONE_DENSE)
        | {"mask_token_id": MASK},
        (Qwen3MoeForCausalLM, Qwen3MoeConfig, {**_SIZES, **_ONE_DENSE}),
        blocks_of(4),
    ),
    PublishedMixture(
        "llada-moe",
        _LLADA_MOE
        | {
            "architectures": ["LLaDAMoEModelLM"],
            "dense_intermediate_size": HIDDEN,
            "expert_intermediate_size": INNER,
            "num_experts": EXPERTS,
            "num_experts_per_tok": CHOSEN,
            "moe_layer_freq": [1, 0],
            "qk_layernorm": True,
            "norm_topk_prob": None,
            "mask_token_id": 256,  # as published: another token's
            "head_dim": HEAD_DIM,
        },
        (
            Qwen3MoeForCausalLM,
            Qwen3MoeConfig,
            {**_SIZES, **_EXPERTS, "mlp_only_layers": [1], "norm_topk_prob": False},
        ),
        full,
    ),
    PublishedMixture(
        "llada2",
        sizes(model_type="llada2_moe", **_LLADA2),
        (Glm4MoeForCausalLM, Glm4MoeConfig, _GLM),
        blocks_of(8),
        llada2_name,
        joined=fused,
    ),
    PublishedMixture(
        "llada2",
        sizes(model_type="llada2_moe_veomni", **_LLADA2),
        (Glm4MoeForCausalLM, Glm4MoeConfig, _GLM),
        blocks_of(8),
        llada2_name,
        joined=fused,
        is_stacked=True,
    ),
)
