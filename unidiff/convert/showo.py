"""Show-o: Phi-1.5 that reads pictures and text and draws, with rows for codes of pictures.

A text is read left to right, each row its successor. A picture is drawn by denoising: from its
opening to its closing token everybody attends to everybody, and to the text before. In a question
about a picture all tokens up to the picture's end attend to each other. Weights that read pictures
through CLIP load too; what projects its features is kept and not used.

Layout, ids, prompts and masks: showlab's `modeling_showo.py`, `phi.py`, `prompting_utils.py` and
`inference_{t2i,mmu}.py`, in own words. Its `config.json` has no sizes: they are read off the
tensors, but for those of microsoft/phi-1_5 that leave no trace there.
"""

from typing import Any

from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerBase
from transformers.image_utils import PILImageResampling

from unidiff.model.configuration import UniDiffConfig
from unidiff.tokens.layout import IdRange, TokenLayout

from .family import EMBEDDING, HEAD, Family, ForeignFolder
from .keys import Renamed, Rule, Unread
from .mmada import drawing_prompts

# Added behind the ids of Phi's tokenizer, in this order.
ADDED = (
    "[PAD]",
    "<|soi|>",  # a picture begins
    "<|eoi|>",  # a picture ends
    "<|sov|>",
    "<|eov|>",
    "<|t2i|>",  # task: draw
    "<|mmu|>",  # task: answer about a picture
    "<|t2v|>",
    "<|v2v|>",
    "<|lvg|>",
)
_TEXT_END = 50256  # of Phi's tokenizer; it begins a text too
_HEAD_DIM, _TURNED = 64, 0.5  # of Phi-1.5: of a head, and the share of it that positions turn
_POSITIONS = 2048
_LAYER, _THEIRS = "model.layers.{n}.", "showo.model.layers.{n}."
# Weights and biases, theirs -> ours.
_LINEAR = {
    f"{_THEIRS}input_layernorm": f"{_LAYER}input_layernorm",
    f"{_THEIRS}self_attn.q_proj": f"{_LAYER}self_attn.q_proj",
    f"{_THEIRS}self_attn.k_proj": f"{_LAYER}self_attn.k_proj",
    f"{_THEIRS}self_attn.v_proj": f"{_LAYER}self_attn.v_proj",
    f"{_THEIRS}self_attn.dense": f"{_LAYER}self_attn.o_proj",
    f"{_THEIRS}self_attn.q_layernorm": f"{_LAYER}self_attn.q_norm",
    f"{_THEIRS}self_attn.k_layernorm": f"{_LAYER}self_attn.k_norm",
    f"{_THEIRS}mlp.fc1": f"{_LAYER}mlp.up_proj",
    f"{_THEIRS}mlp.fc2": f"{_LAYER}mlp.down_proj",
    "showo.model.final_layernorm": "model.norm",
    "showo.lm_head": HEAD.removesuffix(".weight"),
}
_TABLE = "showo.model.embed_tokens.weight"
_PROJECTOR = "mm_projector.{n}."  # of CLIP's features
_CONVERSATION = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %} {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ 'USER: \n' + message['content'] + ' ASSISTANT:' }}{% endif %}{% endfor %}"
)


def settings(folder: ForeignFolder) -> dict[str, Any]:
    """Phi's block; codes of pictures behind the tokenizer's ids, the mask behind these.

    Raises:
        ValueError: if ids and rows do not fit together.
    """
    config, shapes = folder.config, folder.shapes
    rows, width = shapes[_TABLE]
    first, codes = config["llm_vocab_size"] + len(ADDED), config["codebook_size"]
    if rows != first + codes + 1:
        raise ValueError(
            f"{folder.path} has {rows} rows of the embedding; by config.json Show-o has those of "
            f"{first} tokens, of {codes} codes of pictures and of the mask"
        )
    text_end = folder.named_token("eos_token")
    text_end = _TEXT_END if text_end is None else text_end
    layout = _layout(folder, first, text_end)
    has_norms = "showo.model.layers.0.self_attn.q_layernorm.weight" in shapes
    return {
        "vocab_size": rows,
        "token_layout": layout.to_dict(),
        "mask_token_id": layout.mask_token_id,
        "pad_token_id": layout.pad_token_id,
        "bos_token_id": text_end,
        "eos_token_id": list(layout.end_token_ids),
        "hidden_size": width,
        "intermediate_size": shapes["showo.model.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": sum(name.endswith(".self_attn.dense.weight") for name in shapes),
        "num_attention_heads": width // _HEAD_DIM,
        "head_dim": _HEAD_DIM,
        "hidden_act": "gelu_new",
        "mlp_type": "plain",
        "norm_type": "layer",
        "norm_bias": True,
        "norm_placement": "parallel",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": _TURNED,
        },
        "attention_bias": True,
        "output_bias": True,
        "use_qk_norm": has_norms,
        "head_bias": True,
        "tie_word_embeddings": False,
        "max_position_embeddings": _POSITIONS,
        "attention_pattern": "causal_context",
        "canvas_length": 32,  # of a text's canvas, which it was not trained on
    }


def _layout(folder: ForeignFolder, first: int, text_end: int) -> TokenLayout:
    """Ids of a checkpoint whose codes begin at `first`."""
    codes, side = folder.config["codebook_size"], folder.square_side("num_vq_tokens")
    added = {name: first - len(ADDED) + place for place, name in enumerate(ADDED)}
    around = added["<|soi|>"], added["<|eoi|>"]
    return TokenLayout(
        ranges={"text": IdRange(0, first), "image": IdRange(first, codes)},
        mask_token_id=first + codes,
        pad_token_id=added["[PAD]"],
        end_token_ids=(text_end,),
        reserved_token_ids=around,
        image_grid=(side, side),
        delimiters={"image": around},
        closes_canvas=True,
        opens_canvas=True,
        prefix_end_token_id=around[1],
        is_straight=True,
    )


def rules(folder: ForeignFolder, config: UniDiffConfig) -> list[Rule]:
    """Names of the tensors, Phi's behind a prefix."""
    del folder, config
    both = ("weight", "bias")
    return [
        Renamed(_TABLE, EMBEDDING),
        *(
            Renamed(f"{one}.{kind}", f"{two}.{kind}")
            for one, two in _LINEAR.items()
            for kind in both
        ),
        *(Unread(_PROJECTOR + kind) for kind in both),
    ]


def prompts(folder: ForeignFolder, tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The chat template with what pictures need around it; see `Family.prompts`.

    Raises:
        ValueError: if the tokenizer has other ids than the layout.
    """
    pad = folder.config["llm_vocab_size"]
    ids = tokenizer.convert_tokens_to_ids(list(ADDED))
    if ids != list(range(pad, pad + len(ADDED))):
        raise ValueError(
            f"the tokenizer of {folder.path} has the ids {ids} for {list(ADDED)}; config.json has "
            f"them from {pad} on: they belong to different checkpoints"
        )
    return drawing_prompts("Show-o", "<|t2i|>", "<|mmu|>", template)


def phi(config: UniDiffConfig) -> tuple[Any, str]:
    """Phi of these sizes, and what Show-o's names have before Phi's; see `Family.own_class`."""
    sizes = PhiConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        hidden_act=config.hidden_act,
        max_position_embeddings=config.max_position_embeddings,
        layer_norm_eps=config.rms_norm_eps,
        rope_parameters=dict(config.rope_parameters or {}),
        qk_layernorm=config.use_qk_norm,
    )
    return PhiForCausalLM(sizes), "showo."


SHOWO = Family(
    name="show-o",
    settings=settings,
    rules=rules,
    decoding={"max_new_tokens": 100, "decoding_mode": "ar_text"},
    template=_CONVERSATION,
    prompts=prompts,
    tokenizer="microsoft/phi-1_5",
    added_tokens=ADDED,
    resample=PILImageResampling.BILINEAR,
    own_class=phi,
)
