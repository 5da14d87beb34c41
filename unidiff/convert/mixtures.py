"""Families with mixtures of experts: Qwen3-MoE, SDAR-MoE, LLaDA-MoE, LLaDA2.x.

Published files hold a tensor for each expert; ours hold a stack for each projection.

Layouts and maths: transformers' `qwen3_moe`; inclusionAI's `configuration_llada2_moe.py` and
`modeling_llada2_moe.py`; ports of LLaDA-MoE. In own words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.experts import STACKS

from . import llama_like
from .family import EMBEDDING, HEAD, Family, ForeignFolder
from .heads import Tied
from .keys import Fused, Renamed, Rule, Stacked, Unread
from .own_inputs import grid_inputs

# As Ling and LLaDA2 write turns, for folders whose tokenizer has no template.
ROLES = (
    "{% for message in messages %}"
    "<role>{{ 'HUMAN' if message['role'] == 'user' else message['role'] | upper }}</role>"
    "{{ message['content'] }}<|role_end|>{% endfor %}"
    "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)
_MASK = 156895  # of LLaDA-MoE and LLaDA2; config.json may say another, which is no mask
_LAYER = "model.layers.{n}."
# What `config.json` may say of the maths, the value that the model has first.
_LLADA_MOE_FIXED: dict[str, tuple[Any, ...]] = {
    "qk_layernorm": (True,),
    "attention_bias": (False,),
    "clip_qkv": (None,),
    "partial_rotary_factor": (1.0,),
    "shared_expert_intermediate_size": (None, 0),
    "moe_router_score_function": ("softmax",),
    "moe_router_enable_expert_bias": (False, None),
    "router_num_group": (None, 1),
    "routed_scaling_factor": (1.0, None),
}
_LLADA2_FIXED: dict[str, tuple[Any, ...]] = {
    "use_bias": (False,),
    "use_qkv_bias": (False,),
    "using_split_qkv_in_self_attention": (False,),
    "use_rmsnorm": (True,),
    "norm_head": (False,),
    "norm_softmax": (False,),
    "score_function": ("sigmoid",),
    "moe_router_enable_expert_bias": (True,),
    "norm_topk_prob": (True,),
}
_EMBEDDING_2 = "model.word_embeddings.weight"
_EPSILON = {"rms_norm_eps": 1e-5}  # of both classes, where `config.json` leaves it out


def experts(folder: ForeignFolder) -> dict[str, Any]:
    """Fields of the configuration that Qwen3-MoE and SDAR-MoE name alike."""
    config = folder.config
    dense, every = config.get("mlp_only_layers") or [], config.get("decoder_sparse_step", 1)
    layers = range(config["num_hidden_layers"])
    return {
        # As transformers 5 writes it, or as it is published.
        "num_experts": config.get("num_local_experts") or config["num_experts"],
        "num_experts_per_tok": config["num_experts_per_tok"],
        "moe_intermediate_size": config["moe_intermediate_size"],
        "norm_topk_prob": bool(config.get("norm_topk_prob", False)),
        "mlp_only_layers": [n for n in layers if n in dense or (n + 1) % every],
    }


def qwen3_moe(folder: ForeignFolder) -> dict[str, Any]:
    """Qwen3-MoE as it is: context is causal, and a row predicts its successor."""
    return {**llama_like.autoregressive(folder), "use_qk_norm": True, **experts(folder)}


def sdar_moe(folder: ForeignFolder) -> dict[str, Any]:
    """Qwen3-MoE with a grid of blocks; a row predicts itself."""
    return {**llama_like.sdar(folder), **experts(folder)}


def llada_moe(folder: ForeignFolder) -> dict[str, Any]:
    """Qwen3-MoE that attends in both directions, with other names for the sizes."""
    for name, values in _LLADA_MOE_FIXED.items():
        folder.wants(name, *values)
    config = folder.config
    layers = config["num_hidden_layers"]
    is_mixture = config.get("moe_layer_freq") or [1] * layers
    renamed = {
        "intermediate_size": config.get("dense_intermediate_size") or 1,  # unless a layer is dense
        "moe_intermediate_size": config["expert_intermediate_size"],
        "mlp_only_layers": [n for n, one in enumerate(is_mixture) if not one],
    }
    read = replace(folder, config={**_EPSILON, "rope_theta": 50_000.0, **config, **renamed})
    return {
        **llama_like.shape(read),
        **experts(read),
        "use_qk_norm": True,
        "attention_pattern": "full",
        "canvas_length": 32,
        "mask_token_id": mask_of(folder),
    }


def llada2(folder: ForeignFolder) -> dict[str, Any]:
    """Ling with a grid of blocks; a row predicts itself.

    The norms of queries and keys are there whatever `use_qk_norm` says.
    """
    for name, values in _LLADA2_FIXED.items():
        folder.wants(name, *values)
    config = folder.config
    shapes = {EMBEDDING: folder.shapes[_EMBEDDING_2]}
    settings = llama_like.shape(replace(folder, config={**_EPSILON, **config}, shapes=shapes))
    return {
        **settings,
        "rope_parameters": partial_rotary(folder, settings),
        "use_qk_norm": True,
        "num_experts": config["num_experts"],
        "num_experts_per_tok": config["num_experts_per_tok"],
        "moe_intermediate_size": config["moe_intermediate_size"],
        "num_shared_experts": config.get("num_shared_experts") or 0,
        "mlp_only_layers": list(range(config.get("first_k_dense_replace", 0))),
        "router_scores": "sigmoid",
        "norm_topk_prob": config["num_experts_per_tok"] > 1,
        "routed_scaling_factor": config.get("routed_scaling_factor", 2.5),
        "use_expert_bias": True,
        "n_group": config.get("n_group", 8),
        "topk_group": config.get("topk_group", 4),
        "attention_pattern": "block_causal",
        "canvas_length": config.get("block_size", 32),
        "mask_token_id": mask_of(folder),
    }


def partial_rotary(folder: ForeignFolder, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary parameters of heads that turn in part; raises ValueError if two fields disagree."""
    share = folder.config.get("partial_rotary_factor", 0.5)
    folder.wants("rotary_dim", int(share * settings["head_dim"]), None)
    return {"partial_rotary_factor": share, **settings["rope_parameters"]}


def mask_of(folder: ForeignFolder) -> int:
    """Id of the mask: that of the tokenizer's `<|mask|>`, where it has one."""
    return folder.special_ids.get("<|mask|>", _MASK)


def rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors under those of Qwen3-MoE."""
    return [*llama_like.rules(folder, config), *expert_rules(config)]


def expert_rules(config: UniDiffConfig) -> list[Rule]:
    """Router and experts: a tensor for each expert, or stacks as ours."""
    assert config.num_experts is not None
    mlp = f"{_LAYER}mlp."
    stacks = [f"{mlp}experts.{name}" for name in STACKS]
    numbered = [f"{mlp}experts.{{e}}.{name}.weight" for name in STACKS]
    pairs = zip(numbered, stacks, strict=True)
    return [
        *same(f"{mlp}gate.weight", *stacks),
        *(Stacked(theirs, ours, config.num_experts) for theirs, ours in pairs),
    ]


def llada2_rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors; queries, keys and values are one."""
    del folder
    assert config.num_key_value_heads is not None
    attention, ours = f"{_LAYER}attention.", f"{_LAYER}self_attn."
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    parts = tuple(f"{ours}{one}_proj.weight" for one in "qkv")
    rows = tuple(number * config.head_dim for number in (heads, groups, groups))
    mlp, norms = f"{_LAYER}mlp.", ("input_layernorm", "post_attention_layernorm")
    dense = (f"{mlp}{where}{one}.weight" for where in ("", "shared_experts.") for one in STACKS)
    table, head = Renamed(_EMBEDDING_2, EMBEDDING), Renamed(HEAD, HEAD)
    frequencies = ("model.rotary_emb.inv_freq", f"{attention}rotary_emb.inv_freq")
    return [
        *([Tied(table, _EMBEDDING_2, HEAD)] if config.tie_word_embeddings else [table, head]),
        Fused(f"{attention}query_key_value.weight", parts, rows),
        Renamed(f"{attention}query_layernorm.weight", f"{ours}q_norm.weight"),
        Renamed(f"{attention}key_layernorm.weight", f"{ours}k_norm.weight"),
        Renamed(f"{attention}dense.weight", f"{ours}o_proj.weight"),
        *same(*(f"{_LAYER}{one}.weight" for one in norms), *dense, "model.norm.weight"),
        *same(f"{mlp}gate.expert_bias"),
        *expert_rules(config),
        *map(Unread, frequencies),
    ]


def same(*names: str) -> Iterable[Rule]:
    """Tensors of the same name in both formats."""
    return [Renamed(name, name) for name in names]


QWEN3_MOE = replace(llama_like.AUTOREGRESSIVE, name="qwen3-moe", settings=qwen3_moe, rules=rules)
SDAR_MOE = replace(llama_like.SDAR, name="sdar-moe", settings=sdar_moe, rules=rules)
LLADA_MOE = Family(
    name="llada-moe",
    settings=llada_moe,
    rules=rules,
    decoding={"max_new_tokens": 128, "block_length": 32, "unmasking_strategy": "static"},
    template=ROLES,
)
LLADA2 = Family(
    name="llada2",
    settings=llada2,
    rules=llada2_rules,
    decoding={
        "max_new_tokens": 2048,
        "unmasking_strategy": "dynamic",
        "confidence_threshold": 0.95,
    },
    template=ROLES,
    own_inputs=grid_inputs,
)
