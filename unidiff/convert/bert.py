"""BERT and RoBERTa as denoisers: DiffusionBERT, and any checkpoint that was trained to fill masks.

They know no time and no prompt. DiffusionBERT is BERT trained further under absorbing noise; of its
variants those load that are not told the time. Its files are a trainer's (`.th`) and hold weights
alone: `config.json` and the tokenizer are those of bert-base-uncased, to be laid beside. The order
in which its noise takes words, the frequent ones last, is no part of the weights.

Layout and maths: transformers' `modeling_bert.py` and `modeling_roberta.py`; Hzfinfdu's
Diffusion-BERT `DDP_main.py` and `predict.py`; in own words.
"""

from dataclasses import replace
from typing import Any

from unidiff.model.configuration import UniDiffConfig
from unidiff.tokens.layout import IdRange, TokenLayout

from .family import EMBEDDING, HEAD, Family, ForeignFolder
from .heads import Tied
from .keys import Renamed, Rule, Unread

_LAYER, _THEIRS = "model.layers.{n}.", "encoder.layer.{n}."
# Behind the name of the encoder: theirs -> ours.
_NORMS = {
    "embeddings.LayerNorm": "model.embed_inputs.norm",
    f"{_THEIRS}attention.output.LayerNorm": f"{_LAYER}input_layernorm",
    f"{_THEIRS}output.LayerNorm": f"{_LAYER}post_attention_layernorm",
}
_LINEAR = {
    f"{_THEIRS}attention.self.query": f"{_LAYER}self_attn.q_proj",
    f"{_THEIRS}attention.self.key": f"{_LAYER}self_attn.k_proj",
    f"{_THEIRS}attention.self.value": f"{_LAYER}self_attn.v_proj",
    f"{_THEIRS}attention.output.dense": f"{_LAYER}self_attn.o_proj",
    f"{_THEIRS}intermediate.dense": f"{_LAYER}mlp.up_proj",
    f"{_THEIRS}output.dense": f"{_LAYER}mlp.down_proj",
}
_WORDS = "embeddings.word_embeddings"
_BIAS = "lm_head.bias"
_TABLES = {
    "embeddings.position_embeddings": "model.embed_inputs.positions",
    "embeddings.token_type_embeddings": "model.embed_inputs.segments",
}
# Names of the whole, of the head, and of the head's product, norm and bias.
_BERT = ("bert", "cls.predictions", "transform.dense", "transform.LayerNorm")
_ROBERTA = ("roberta", "lm_head", "dense", "layer_norm")
# What else a checkpoint of pretraining holds: buffers, and heads for other tasks.
_UNREAD = (
    "{whole}.embeddings.position_ids",
    "{whole}.embeddings.token_type_ids",
    "{whole}.pooler.dense.weight",
    "{whole}.pooler.dense.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
)
# Parts of a norm; the first checkpoints have TensorFlow's names of them.
_OLD_NAMES = {"weight": "gamma", "bias": "beta"}
_TIME = "encoder.layer.0.timestep_embedding.0.weight"
TEMPLATE = (
    "{{ cls_token or bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
)


def bert(folder: ForeignFolder) -> dict[str, Any]:
    """BERT's block and tables; everybody attends to everybody."""
    return _settings(folder, _BERT, mask=folder.special_ids.get("[MASK]", 103))


def roberta(folder: ForeignFolder) -> dict[str, Any]:
    """BERT whose positions begin behind the row of the padding; its head has gelu always."""
    folder.wants("hidden_act", "gelu")
    padding = folder.config.get("pad_token_id", 1)
    mask = folder.special_ids.get("<mask>", 50264)
    return _settings(folder, _ROBERTA, mask, first_position=padding + 1)


def _settings(
    folder: ForeignFolder, names: tuple[str, ...], mask: int, first_position: int = 0
) -> dict[str, Any]:
    """Fields of the configuration.

    Args:
        folder: of the checkpoint.
        names: of whole and head.
        mask: its id, where the tokenizer does not say.
        first_position: row of the first position.

    Raises:
        ValueError: for maths that the model does not have.
    """
    folder.wants("position_embedding_type", "absolute")
    folder.wants("is_decoder", False)
    folder.wants("hidden_act", "gelu", "gelu_new", "relu")
    config, whole = folder.config, _prefix(folder, names[0]) + names[0]
    if f"{whole}.{_TIME}" in folder.shapes:
        raise ValueError(
            f"{folder.path} is a DiffusionBERT whose layers read the time ({_TIME}); what can be "
            "loaded is a time-agnostic one"
        )
    rows = folder.shapes[f"{whole}.{_WORDS}.weight"][0]
    width, heads = config["hidden_size"], config["num_attention_heads"]
    named = folder.named_token("mask_token")
    around = _around(folder)
    own = {
        "vocab_size": rows,
        "mask_token_id": mask if named is None else named,
        "pad_token_id": config.get("pad_token_id", 0),
        "bos_token_id": around[0] if around else config.get("bos_token_id"),
        "eos_token_id": list(dict.fromkeys([*around[1:], *folder.end_ids])) or None,
    }
    layout = TokenLayout(
        ranges={"text": IdRange(0, rows)},
        mask_token_id=own["mask_token_id"],
        pad_token_id=own["pad_token_id"],
        end_token_ids=tuple(own["eos_token_id"] or ()),
        delimiters={"text": (around[0], around[1])} if around else {},
    )
    return {
        **own,
        "token_layout": layout.to_dict(),
        "hidden_size": width,
        "intermediate_size": config["intermediate_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": heads,
        "head_dim": width // heads,
        "hidden_act": config.get("hidden_act", "gelu"),
        "mlp_type": "plain",
        "norm_type": "layer",
        "norm_bias": True,
        "norm_placement": "post",
        "rms_norm_eps": config.get("layer_norm_eps", 1e-12),
        "attention_bias": True,
        "output_bias": True,
        "use_qk_norm": False,
        "num_positions": config["max_position_embeddings"],
        "first_position": first_position,
        "max_position_embeddings": config["max_position_embeddings"] - first_position,
        "num_segments": folder.shapes[f"{whole}.embeddings.token_type_embeddings.weight"][0],
        "head_transform": True,
        "head_bias": True,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", True)),
        "attention_pattern": "full",
        "canvas_length": 32,
    }


def _around(folder: ForeignFolder) -> tuple[int, ...]:
    """Ids before and behind a text; none where the files do not say."""
    found: list[int] = []
    for name, text, other in (("cls", "[CLS]", "bos"), ("sep", "[SEP]", "eos")):
        ids = (
            folder.named_token(f"{name}_token"),
            folder.special_ids.get(text),
            folder.config.get(f"{other}_token_id"),
        )
        found += [one for one in ids if one is not None][:1]
    return tuple(found) if len(found) == 2 else ()


def _prefix(folder: ForeignFolder, whole: str) -> str:
    """What a trainer on several devices puts before every name; nothing elsewhere."""
    name = f"module.{whole}.{_WORDS}.weight"
    return "module." if name in folder.shapes else ""


def bert_rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors of a BERT."""
    return _rules(folder, _BERT, config)


def roberta_rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors of a RoBERTa."""
    return _rules(folder, _ROBERTA, config)


def _rules(folder: ForeignFolder, names: tuple[str, ...], config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors; the head is a product, its norm, and the table of tokens."""
    whole, head, product, norm = names
    prefix = _prefix(folder, whole)
    pairs = [(f"{whole}.{one}", two) for one, two in _LINEAR.items()]
    pairs += [(f"{whole}.{one}", two) for one, two in _NORMS.items()]
    pairs += [(f"{head}.{product}", "model.transform"), (f"{head}.{norm}", "model.norm")]
    named = [
        (f"{one}.{spelled}", f"{two}.{kind}")
        for one, two in pairs
        for kind, old in _OLD_NAMES.items()
        for spelled in ((kind, old) if one.endswith("LayerNorm") else (kind,))
    ]
    named += [(f"{whole}.{one}.weight", f"{two}.weight") for one, two in _TABLES.items()]
    words, decoder = f"{prefix}{whole}.{_WORDS}.weight", f"{prefix}{head}.decoder.weight"
    table = Renamed(words, EMBEDDING)
    return [
        *(Renamed(prefix + one, two) for one, two in named),
        *(
            [Tied(table, words, decoder)]
            if config.tie_word_embeddings
            else [table, Renamed(decoder, HEAD)]
        ),
        *_bias(folder, prefix + head, config.tie_word_embeddings),
        *(Unread(prefix + one.format(whole=whole)) for one in _UNREAD),
    ]


def _bias(folder: ForeignFolder, head: str, is_tied: bool) -> list[Rule]:
    """Names of the bias on the logits, of which files have one or both.

    transformers adds the decoder's. Where the decoder's weight is the table both are one tensor;
    where it is not, the other one is read by nothing.

    Args:
        folder: of the checkpoint.
        head: its name.
        is_tied: whether the decoder's weight is the table.
    """
    one, decoders = f"{head}.bias", f"{head}.decoder.bias"
    if decoders not in folder.shapes:
        return [Renamed(one, _BIAS)]
    if is_tied and one in folder.shapes:
        return [Tied(Renamed(one, _BIAS), one, decoders)]
    return [Renamed(decoders, _BIAS), Unread(one)]


BERT = Family(
    name="bert",
    settings=bert,
    rules=bert_rules,
    decoding={
        "max_new_tokens": 32,
        "unmasking_strategy": "static",
        "do_sample": True,
        "temperature": 0.1,
        "top_k": 30,
    },
    template=TEMPLATE,
    tokenizer="bert-base-uncased",
)
ROBERTA = replace(
    BERT, name="roberta", settings=roberta, rules=roberta_rules, tokenizer="roberta-base"
)
