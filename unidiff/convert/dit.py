"""MDLM and BD3-LM: diffusion transformers with adaptive norms, over the tokens of GPT-2.

They read and predict as other masked models do; what differs is the block (`model/modulation.py`).
The time that moves its norms is 0 in every published checkpoint. Layout and maths:
kuleshov-group's `modeling_mdlm.py` and `modeling_bd3lm.py`, in own words.
"""

from dataclasses import replace
from typing import Any

from unidiff.model.configuration import UniDiffConfig

from .family import EMBEDDING, HEAD, Family, ForeignFolder
from .keys import Fused, Renamed, Rule, Unread
from .llama_like import UNMARKED
from .own_inputs import bd3lm_inputs, mdlm_inputs

_LAYER, _BLOCK = "model.layers.{n}.", "backbone.blocks.{n}."
_TABLE = "backbone.vocab_embed.embedding"
_CONDITION = "backbone.sigma_map.mlp."
_OUTPUT = "backbone.output_layer."
# Weights and biases of linear layers, weights of the others: theirs -> ours.
_LINEAR = {
    f"{_CONDITION}0": "model.condition.in_proj",
    f"{_CONDITION}2": "model.condition.out_proj",
    f"{_BLOCK}mlp.0": f"{_LAYER}mlp.up_proj",
    f"{_BLOCK}mlp.2": f"{_LAYER}mlp.down_proj",
    f"{_BLOCK}adaLN_modulation": f"{_LAYER}modulation",
    f"{_OUTPUT}adaLN_modulation": "model.modulation",
    f"{_OUTPUT}linear": HEAD.removesuffix(".weight"),
}
_WEIGHTS = {
    f"{_BLOCK}norm1": f"{_LAYER}input_layernorm",
    f"{_BLOCK}norm2": f"{_LAYER}post_attention_layernorm",
    f"{_BLOCK}attn_out": f"{_LAYER}self_attn.o_proj",
    f"{_OUTPUT}norm_final": "model.norm",
}
_UNREAD = ("backbone.rotary_emb.inv_freq", "sampling_eps_min", "sampling_eps_max")


def mdlm(folder: ForeignFolder) -> dict[str, Any]:
    """Everybody attends to everybody; the last id is the mask, the one before ends a text.

    Raises:
        ValueError: for maths that the model does not have.
    """
    folder.wants("time_conditioning", False)
    config = folder.config
    width, heads = config["hidden_dim"], config["n_heads"]
    mask = config["vocab_size"] - 1
    end = folder.named_token("eos_token")
    end = mask - 1 if end is None else end
    return {
        "vocab_size": folder.shapes[_TABLE][0],
        "hidden_size": width,
        "intermediate_size": folder.shapes["backbone.blocks.0.mlp.0.weight"][0],
        "num_hidden_layers": config["n_blocks"],
        "num_attention_heads": heads,
        "head_dim": width // heads,
        "hidden_act": "gelu_pytorch_tanh",
        "mlp_type": "plain",
        "norm_type": "layer",
        "rms_norm_eps": 1e-5,
        # Not config.json's, whose default is not what is published.
        "modulation_dim": folder.shapes[f"{_CONDITION}0.weight"][0],
        "head_bias": True,
        "use_qk_norm": False,
        "tie_word_embeddings": False,
        "max_position_embeddings": config.get("model_length", 1024),
        "attention_pattern": "full",
        "canvas_length": config.get("model_length", 1024),  # all of a text is denoised together
        "mask_token_id": mask,
        "pad_token_id": end,
        "bos_token_id": end,
        "eos_token_id": end,
    }


def bd3lm(folder: ForeignFolder) -> dict[str, Any]:
    """MDLM with a grid of blocks, which its training pass of two streams makes block-causal.

    Raises:
        ValueError: for maths that the model does not have.
    """
    folder.wants("cross_attn", True)
    folder.wants("adaln", True)
    folder.wants("causal", False)
    return {
        **mdlm(folder),
        "attention_pattern": "block_causal",
        "canvas_length": folder.config["block_size"],
    }


def rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors; queries, keys and values are one tensor."""
    projections = tuple(f"{_LAYER}self_attn.{one}_proj.weight" for one in "qkv")
    linear = [
        Renamed(f"{one}.{kind}", f"{two}.{kind}")
        for one, two in _LINEAR.items()
        for kind in ("weight", "bias")
    ]
    return [
        Renamed(_TABLE, EMBEDDING),
        *linear,
        *(Renamed(f"{one}.weight", f"{two}.weight") for one, two in _WEIGHTS.items()),
        Fused(f"{_BLOCK}attn_qkv.weight", projections, (config.hidden_size,) * 3),
        *map(Unread, _UNREAD),
    ]


MDLM = Family(
    name="mdlm",
    settings=mdlm,
    rules=rules,
    decoding={
        "max_new_tokens": 512,  # with a prompt of as many, the length that both were trained on
        "unmasking_strategy": "first_hitting",
        "do_sample": True,
    },
    template=UNMARKED,
    tokenizer="gpt2",
    own_inputs=mdlm_inputs,
)
BD3LM = replace(
    MDLM,
    name="bd3lm",
    settings=bd3lm,
    own_inputs=bd3lm_inputs,
    own_settings={"attn_backend": "sdpa"},  # "flex", as published, knows no `sample_mode`
)
