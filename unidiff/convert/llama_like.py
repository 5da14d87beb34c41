"""Families under the names of Llama and Qwen: Dream, SDAR, Fast-dLLM v2, Open-dLLM, a2d, and AR.

They differ in biases, norms of queries and keys, the pattern of attention and what a row predicts.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unidiff.model.configuration import UniDiffConfig

from .family import EMBEDDING, HEAD, Family, ForeignFolder
from .heads import Tied
from .keys import Grown, Renamed, Rule, Unread
from .own_inputs import fast_dllm_inputs, full_inputs, grid_inputs, sdar_inputs

# As Qwen writes turns, for folders whose tokenizer has no template.
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
UNMARKED = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # a base model's
_LAYER = "model.layers.{n}."
_WEIGHTS = (
    "input_layernorm",
    "post_attention_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
_BIASES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
# Frequencies that follow from the sizes; transformers saved them until 2023.
_FREQUENCIES = ("model.rotary_emb.inv_freq", f"{_LAYER}self_attn.rotary_emb.inv_freq")


def shape(folder: ForeignFolder) -> dict[str, Any]:
    """Fields of the configuration that all of them name alike.

    Raises:
        ValueError: for maths that the model does not have.
    """
    folder.wants("hidden_act", "silu")
    folder.wants("mlp_bias", False)
    folder.wants("use_sliding_window", False, None)
    config = folder.config
    heads, width = config["num_attention_heads"], config["hidden_size"]
    return {
        "vocab_size": folder.shapes[EMBEDDING][0],
        "hidden_size": width,
        "intermediate_size": config["intermediate_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or width // heads,
        "max_position_embeddings": config.get("max_position_embeddings", 32768),
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "rope_parameters": rotary(config),
        "attention_bias": False,
        "use_qk_norm": False,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "pad_token_id": pad_id(folder),
        "bos_token_id": config.get("bos_token_id"),
        "eos_token_id": folder.end_ids or None,
    }


def pad_id(folder: ForeignFolder) -> int | None:
    """Id of the padding; Llama's first configurations say -1 where there is none."""
    said = folder.config.get("pad_token_id")
    return folder.named_token("pad_token") if said is None or said < 0 else int(said)


def rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the rotary positions, from either generation of `config.json`."""
    new = config.get("rope_parameters")
    if new:
        return dict(new)
    scaling = dict(config.get("rope_scaling") or {})
    kind = scaling.pop("type", None) or scaling.pop("rope_type", None) or "default"
    return {**scaling, "rope_type": kind, "rope_theta": config.get("rope_theta", 10_000.0)}


def rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors, the same in both formats."""
    layer = [f"{one}.weight" for one in _WEIGHTS]
    layer += [f"{one}.bias" for one in _BIASES] if config.attention_bias else []
    layer += [f"{one}.weight" for one in _NORMS] if config.use_qk_norm else []
    rows = folder.shapes[EMBEDDING][0]
    table, head = (Grown(name, rows, config.vocab_size) for name in (EMBEDDING, HEAD))
    return [
        *([Tied(table, EMBEDDING, HEAD)] if config.tie_word_embeddings else [table, head]),
        *(Renamed(name, name) for name in (*(_LAYER + one for one in layer), "model.norm.weight")),
        *map(Unread, _FREQUENCIES),
    ]


def dream(folder: ForeignFolder) -> dict[str, Any]:
    """Qwen2.5 that attends in both directions; a row predicts its successor."""
    return {
        **shape(folder),
        "attention_bias": True,
        "attention_pattern": "full",
        "logits_shift": 1,
        "canvas_length": 32,
        "mask_token_id": folder.config.get("mask_token_id", 151666),
    }


def dream_reasoner(folder: ForeignFolder) -> dict[str, Any]:
    """Qwen3 with a grid of blocks under Dream's `model_type`; a row predicts itself."""
    return {**sdar(folder), "canvas_length": folder.config["block_size"]}


def illada(folder: ForeignFolder) -> dict[str, Any]:
    """A Llama that attends in both directions; the mask is one of its tokenizer's added tokens."""
    mask = folder.config.get("mask_token_id") or folder.special_ids.get("<[MASK]>", 5)
    return {
        **shape(folder),
        "attention_pattern": "full",
        "canvas_length": 32,
        "mask_token_id": mask,
    }


def sdar(folder: ForeignFolder) -> dict[str, Any]:
    """Qwen3 with a grid of blocks; a row predicts itself."""
    return {
        **shape(folder),
        "use_qk_norm": True,
        "attention_pattern": "block_causal",
        "canvas_length": folder.config.get("block_size", 4),
        "mask_token_id": folder.config.get("mask_token_id", 151669),
    }


def fast_dllm(folder: ForeignFolder) -> dict[str, Any]:
    """Qwen2.5 with a grid of blocks; a row predicts its successor."""
    found = folder.special_ids.get("|<MASK>|", 151665)
    return {
        **shape(folder),
        "attention_bias": True,
        "attention_pattern": "block_causal",
        "logits_shift": 1,
        "canvas_length": folder.config.get("bd_size", 32),
        "mask_token_id": folder.config.get("mask_token_id", found),
    }


def open_dllm(folder: ForeignFolder) -> dict[str, Any]:
    """Qwen2 with a mask among its special tokens; it attends and predicts as Dream does."""
    mask = folder.named_token("mask_token")
    assert mask is not None  # `family_of` looked
    return {**dream(folder), "mask_token_id": mask}


def a2d(folder: ForeignFolder) -> dict[str, Any]:
    """A Llama or Qwen adapted to masked diffusion by dllm; a row predicts itself."""
    mask = folder.named_token("mask_token")
    if mask is None:
        raise ValueError(f"{folder.path / 'tokenizer_config.json'} names no mask_token")
    block = folder.config.get("block_size")
    return {
        **shape(folder),
        **flags(folder, folder.config["model_type"].removeprefix("a2d-")),
        "attention_pattern": "full" if block is None else "block_causal",
        "canvas_length": block or 32,
        "mask_token_id": mask,
    }


def autoregressive(folder: ForeignFolder) -> dict[str, Any]:
    """A Llama or Qwen as it is: context is causal, and a row predicts its successor.

    The mask is an id that the tokenizer does not use; where every row is used, one is added.
    """
    settings = {**shape(folder), **flags(folder, folder.config["model_type"])}
    mask = spare_id(folder)
    return {
        **settings,
        "vocab_size": max(settings["vocab_size"], mask + 1),
        "attention_pattern": "causal_context",
        "logits_shift": 1,
        "canvas_length": 32,
        "mask_token_id": mask,
    }


def flags(folder: ForeignFolder, kind: str) -> dict[str, bool]:
    """Biases of queries, keys and values (Qwen2), norms of queries and keys (Qwen3)."""
    folder.wants("attention_bias", kind == "qwen2", False)
    return {"attention_bias": kind == "qwen2", "use_qk_norm": kind == "qwen3"}


def spare_id(folder: ForeignFolder) -> int:
    """The first id behind the tokenizer's; of a folder without one, the first behind the rows."""
    rows = folder.shapes[EMBEDDING][0]
    return rows if folder.num_ids is None else min(rows, folder.num_ids)


DREAM = Family(
    name="dream",
    settings=dream,
    rules=rules,
    decoding={
        "max_new_tokens": 512,
        "block_length": 512,
        "unmasking_strategy": "static",
        "confidence_metric": "entropy",
        "temperature": 0.2,
        "top_p": 0.95,
        "do_sample": True,
    },
    template=CHATML,
)
SDAR = Family(
    name="sdar",
    settings=sdar,
    rules=rules,
    decoding={
        "max_new_tokens": 2048,
        "unmasking_strategy": "dynamic",
        "confidence_threshold": 0.9,
    },
    template=CHATML,
    own_inputs=sdar_inputs,
)
DREAM_REASONER = replace(SDAR, name="dream-reasoner", settings=dream_reasoner)
ILLADA = Family(
    name="illada",
    settings=illada,
    rules=rules,
    decoding={"max_new_tokens": 256, "block_length": 32, "unmasking_strategy": "static"},
    template=CHATML,
)
FAST_DLLM = Family(
    name="fast-dllm-v2",
    settings=fast_dllm,
    rules=rules,
    decoding={
        "max_new_tokens": 2048,
        "unmasking_strategy": "dynamic",
        "confidence_threshold": 0.9,
        "sub_block_length": 8,
        "first_alone": True,
    },
    template=CHATML,
    own_inputs=fast_dllm_inputs,
)
OPEN_DLLM = Family(
    name="open-dllm",
    settings=open_dllm,
    rules=rules,
    decoding={
        "max_new_tokens": 128,
        "block_length": 128,
        "unmasking_strategy": "static",
        "temperature": 0.5,
        "top_k": 200,
        "do_sample": True,
    },
    template=UNMARKED,
    own_inputs=full_inputs,
)
A2D = Family(
    name="a2d",
    settings=a2d,
    rules=rules,
    decoding={"max_new_tokens": 256, "unmasking_strategy": "static"},
    template=CHATML,
    own_inputs=grid_inputs,
)
AUTOREGRESSIVE = Family(
    name="autoregressive",
    settings=autoregressive,
    rules=rules,
    decoding={"max_new_tokens": 512, "decoding_mode": "ar"},
    template=UNMARKED,
)
