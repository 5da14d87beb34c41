"""LLaDA 8B and LLaDA-1.5: a bidirectional Llama under the names of OLMo.

Layout and maths: GSAI-ML's `configuration_llada.py` and `modeling_llada.py`, in own words.
"""

from typing import Any

from unidiff.model.configuration import UniDiffConfig

from .family import EMBEDDING, HEAD, Family, ForeignFolder
from .heads import Tied
from .keys import Renamed, Rule

# What the published class takes where `config.json` leaves a field out; the maths of most of these
# is not the published checkpoints' (layer_norm_type "default" is LayerNorm).
_CLASS_DEFAULTS: dict[str, Any] = {
    "d_model": 768,
    "n_heads": 12,
    "n_layers": 12,
    "mlp_ratio": 4,
    "activation_type": "swiglu",
    "block_type": "sequential",
    "layer_norm_type": "default",
    "rms_norm_eps": 1e-5,
    "rope": False,
    "rope_theta": 10_000.0,
    "max_sequence_length": 1024,
    "vocab_size": 50257,
    "embedding_size": 50304,
    "weight_tying": True,
    "eos_token_id": 50256,
    "pad_token_id": 50256,
    "mask_token_id": 50256,
}
# What `config.json` may say of the maths, the value that the model has first.
_FIXED: dict[str, tuple[Any, ...]] = {
    "block_type": ("llama",),
    "activation_type": ("silu",),
    "layer_norm_type": ("rms",),
    "attention_layer_norm": (False,),
    "bias_for_layer_norm": (False, None),
    "include_bias": (False,),
    "include_qkv_bias": (False, None),
    "input_emb_norm": (False,),
    "alibi": (False,),
    "rope": (True,),
    "scale_logits": (False,),
    "clip_qkv": (None,),
}
# As the Instruct tokenizer writes turns; the Base one has no template.
TEMPLATE = (
    "<|startoftext|>{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_THEIRS = "model.transformer."
TABLE = f"{_THEIRS}wte.weight"  # of embeddings
_THEIR_HEAD = f"{_THEIRS}ff_out.weight"
_LAYER = "model.layers.{n}."


def settings(folder: ForeignFolder) -> dict[str, Any]:
    """Fields of the configuration; raises ValueError for maths that the model does not have."""
    return written_settings(folder.with_defaults(_CLASS_DEFAULTS))


def written_settings(folder: ForeignFolder) -> dict[str, Any]:
    """`settings` of a class without defaults: `config.json` says everything."""
    for name, values in _FIXED.items():
        folder.wants(name, *values)
    config = folder.config
    heads = config["n_heads"]
    groups = config.get("n_kv_heads") or (1 if config.get("multi_query_attention") else heads)
    width = config["d_model"]
    return {
        "vocab_size": config.get("embedding_size") or config["vocab_size"],
        "hidden_size": width,
        "intermediate_size": config.get("mlp_hidden_size") or config["mlp_ratio"] * width,
        "num_hidden_layers": config["n_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": width // heads,
        "max_position_embeddings": config["max_sequence_length"],
        "rms_norm_eps": config["rms_norm_eps"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]},
        "use_qk_norm": False,
        "tie_word_embeddings": bool(config["weight_tying"]),
        "attention_pattern": "full",
        "canvas_length": 32,
        "mask_token_id": config["mask_token_id"],
        "pad_token_id": config.get("pad_token_id"),
        "bos_token_id": folder.named_token("bos_token"),
        "eos_token_id": folder.end_ids or None,
    }


def rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors; `ff_out` is the head, or inside a block the down projection."""
    size = folder.config.get("block_group_size", 1)
    if size != 1:
        raise ValueError(
            f"{folder.path} groups its blocks by {size} (block_group_size); what can be loaded is "
            "1, as in every published checkpoint"
        )
    block = f"{_THEIRS}blocks.{{n}}."
    within = {
        "attn_norm": "input_layernorm",
        "ff_norm": "post_attention_layernorm",
        "q_proj": "self_attn.q_proj",
        "k_proj": "self_attn.k_proj",
        "v_proj": "self_attn.v_proj",
        "attn_out": "self_attn.o_proj",
        "ff_proj": "mlp.gate_proj",
        "up_proj": "mlp.up_proj",
        "ff_out": "mlp.down_proj",
    }
    table, head = Renamed(TABLE, EMBEDDING), Renamed(_THEIR_HEAD, HEAD)
    return [
        *([Tied(table, TABLE, _THEIR_HEAD)] if config.tie_word_embeddings else [table, head]),
        *(Renamed(f"{block}{one}.weight", f"{_LAYER}{two}.weight") for one, two in within.items()),
        Renamed(f"{_THEIRS}ln_f.weight", "model.norm.weight"),
    ]


LLADA = Family(
    name="llada",
    settings=settings,
    rules=rules,
    decoding={"max_new_tokens": 128, "block_length": 32, "unmasking_strategy": "static"},
    template=TEMPLATE,
)
