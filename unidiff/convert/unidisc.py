"""UniDisc: a diffusion transformer over text and pictures, which stand bare in one sequence.

It is published as a file of tensors (`.pt`) without `config.json`; beside it belongs one that says
`{"model_type": "unidisc"}` and, where they differ from the published run's, the fields that are
read below by the names of its own configuration. What the hub's mixin writes of the authors'
class, a tree of settings without a type, is read too. Sizes are read off the tensors. Weights that
are told the time, or that project the picture tokenizer's vectors, are other models.

Layout and maths: alexanderswerdlow's `models/dit.py`, `model.py` and `configs/`, in own words.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unidiff.model.configuration import UniDiffConfig
from unidiff.tokens.layout import IdRange, TokenLayout

from .family import EMBEDDING, HEAD, Family, ForeignFolder
from .keys import Fused, Renamed, Rule

_LAYER, _BLOCK = "model.layers.{n}.", "blocks.{n}."
_TABLE, _COUNTS = "vocab_embed.embedding", "img_count_embedding"
# Weights and biases, and weights alone: theirs -> ours.
_BOTH = {
    f"{_BLOCK}mlp.0": f"{_LAYER}mlp.up_proj",
    f"{_BLOCK}mlp.2": f"{_LAYER}mlp.down_proj",
    f"{_BLOCK}attention.q_norm": f"{_LAYER}self_attn.q_norm",
    f"{_BLOCK}attention.k_norm": f"{_LAYER}self_attn.k_norm",
    "output_layer.linear": HEAD.removesuffix(".weight"),
}
_WEIGHTS = {
    f"{_BLOCK}norm1": f"{_LAYER}input_layernorm",
    f"{_BLOCK}norm2": f"{_LAYER}post_attention_layernorm",
    f"{_BLOCK}pre_residual_norm": f"{_LAYER}attention_out_layernorm",
    f"{_BLOCK}post_ff_norm": f"{_LAYER}mlp_out_layernorm",
    f"{_BLOCK}attention.attn_out": f"{_LAYER}self_attn.o_proj",
    "output_layer.norm_final": "model.norm",
}
_TABLES = {
    _TABLE: EMBEDDING,
    "modality_embed.embedding": "model.embed_inputs.kinds.weight",
    _COUNTS: "model.embed_inputs.numbers.weight",
}
# What `config.json` may say of the maths: the value that the model has, or the tensor that is there
# if it says true.
_FIXED = {
    "norm_type": "rms",
    "full_attention": True,
    "time_conditioning": False,
    "rope_2d": True,
    "parameterization": "subs",
}
_PARTS = {
    "qk_norm": "blocks.0.attention.q_norm.weight",
    "sandwich_normalization": "blocks.0.post_ff_norm.weight",
}
HUB_FIELDS = ("config", "vocab_size", "text_vocab_size", "mask_index")  # of the authors' class
_HEAD_DIM = 128
_TEXT_END, _TEXT_BEGIN = 2, 1  # of Llama's tokenizer
_TRAINED_SIDE = 16  # of a picture's codes, at which positions are not stretched
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"


def settings(folder: ForeignFolder) -> dict[str, Any]:
    """Norms before and behind each part; everybody attends to everybody.

    Raises:
        ValueError: for maths that the model does not have.
    """
    folder, prefix = _flat(folder), _prefix(folder)
    config = folder.config
    shapes = {name.removeprefix(prefix): shape for name, shape in folder.shapes.items()}
    rows, width = shapes[_TABLE]
    layout = _layout(folder, rows)
    # Rows and columns of pictures of other sizes are stretched over those of the first.
    stretch = max(1.0, layout.image_grid[0] / _TRAINED_SIDE)
    if _COUNTS not in shapes:  # where several pictures may stand, their sizes alone say it
        stretch = float(config.get("linear_factor", stretch))
    parts = {field: name in shapes for field, name in _PARTS.items()}
    _check_maths(folder, {**_FIXED, **parts, "mask_index": layout.mask_token_id})
    return {
        "vocab_size": rows,
        "token_layout": layout.to_dict(),
        "mask_token_id": layout.mask_token_id,
        "pad_token_id": layout.pad_token_id,
        "bos_token_id": _begin(folder),
        "eos_token_id": list(layout.end_token_ids),
        "hidden_size": width,
        "intermediate_size": shapes["blocks.0.mlp.0.weight"][0],
        "num_hidden_layers": sum(name.endswith(".norm1.weight") for name in shapes),
        "num_attention_heads": config.get("n_heads", width // _HEAD_DIM),
        "head_dim": width // config.get("n_heads", width // _HEAD_DIM),
        "hidden_act": "gelu_pytorch_tanh",
        "mlp_type": "plain",
        "norm_type": "rms",
        "rms_norm_eps": 1e-6,
        "norm_placement": "sandwich" if parts["sandwich_normalization"] else "pre",
        "use_qk_norm": parts["qk_norm"],
        "qk_norm_type": "all_heads",
        "head_bias": True,
        "tie_word_embeddings": False,
        "picture_axes": True,
        "picture_rope_factor": stretch,
        "num_picture_numbers": shapes.get(_COUNTS, (0,))[0],
        "max_position_embeddings": config.get("length", 1536),
        "attention_pattern": "full",
        "canvas_length": 64,
    }


def has_hub_fields(folder: ForeignFolder) -> bool:
    """Whether `config.json` is what the hub's mixin writes of the authors' class."""
    return all(name in folder.config for name in HUB_FIELDS)


def _flat(folder: ForeignFolder) -> ForeignFolder:
    """The folder with the fields of the mixin's tree of settings, where it is one, side by side."""
    if not has_hub_fields(folder):
        return folder
    tree = folder.config["config"]
    fields = {**tree, **tree["model"]}
    if _prefix(folder) + _COUNTS in folder.shapes:
        fields.pop("img_length", None)  # there not of one picture
    return replace(folder, config={**fields, **folder.config})


def _check_maths(folder: ForeignFolder, has: Mapping[str, Any]) -> None:
    """Raise ValueError unless `config.json` says of some fields what the model or the weights have.

    Args:
        folder: of the checkpoint.
        has: field -> its only value.
    """
    if f"{_prefix(folder)}blocks.0.adaLN_modulation.weight" in folder.shapes:
        raise ValueError(
            f"{folder.path} is a UniDisc whose blocks are told the time; what can be loaded is one "
            "without time conditioning, as published"
        )
    for name, value in has.items():
        folder.wants(name, value)


def _layout(folder: ForeignFolder, rows: int) -> TokenLayout:
    """Ids of text, the mask behind them, and the codes of pictures."""
    first = folder.config.get("text_vocab_size", 32001)
    side = folder.square_side("img_length", _TRAINED_SIDE**2)
    if not 0 < first < rows:
        raise ValueError(
            f"{folder.path} has {rows} rows of the embedding, by text_vocab_size the codes of "
            f"pictures begin at {first}: config.json and weights belong to different checkpoints"
        )
    ends = folder.end_ids or [_TEXT_END]
    return TokenLayout(
        ranges={"text": IdRange(0, first - 1), "image": IdRange(first, rows - first)},
        mask_token_id=first - 1,
        pad_token_id=ends[0],
        end_token_ids=tuple(ends),
        image_grid=(side, side),
        has_bare_pictures=True,
    )


def _begin(folder: ForeignFolder) -> int:
    """Id that begins a text."""
    found = folder.named_token("bos_token")
    return _TEXT_BEGIN if found is None else found


def _prefix(folder: ForeignFolder) -> str:
    """What the trainer's own checkpoints have before every name."""
    return "backbone." if f"backbone.{_TABLE}" in folder.shapes else ""


def rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors; queries, keys and values are one tensor."""
    prefix = _prefix(folder)
    both = [(f"{a}.{kind}", f"{b}.{kind}") for a, b in _BOTH.items() for kind in ("weight", "bias")]
    weights = [(f"{a}.weight", f"{b}.weight") for a, b in _WEIGHTS.items()]
    projections = tuple(f"{_LAYER}self_attn.{one}_proj.weight" for one in "qkv")
    return [
        *(Renamed(prefix + one, two) for one, two in (*_TABLES.items(), *both, *weights)),
        Fused(f"{prefix}{_BLOCK}attention.attn_qkv.weight", projections, (config.hidden_size,) * 3),
    ]


UNIDISC = Family(
    name="unidisc",
    settings=settings,
    rules=rules,
    decoding={
        "max_new_tokens": 64,
        "unmasking_strategy": "static",
        "do_sample": True,
        "temperature": 0.9,
        "top_p": 0.95,
    },
    template=TEMPLATE,
    tokenizer="NousResearch/Llama-2-7b-hf",
    own_code="github.com/alexanderswerdlow/unidisc",
)
