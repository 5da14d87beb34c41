"""Tiny random checkpoints in the layouts that others publish, and references that read them.

References are transformers' own Llama, Qwen2 and Qwen3 under an attention mask that is written out
here, with the published names of the tensors put on their weights.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

ROWS = 320  # of every embedding; the tokenizer has fewer ids
WIDTH, HIDDEN, LAYERS, HEADS, GROUPS, HEAD_DIM = 32, 48, 2, 4, 2, 8
SPECIALS = ("<|end|>", "<|mask|>", "<|user|>", "<|assistant|>")
END, MASK = 256, 257
MMADA_SPECIALS = ("<|startoftext|>", "<|soi|>", "<|eoi|>", "<|t2i|>", "<|mmu|>")
CHATML = (
    "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Published:
    """A family's layout at a tiny size.

    Attributes:
        name: of the family, as the package has it.
        config: its `config.json`.
        reference: transformers' class and the fields that its configuration has besides the sizes.
        names: (name of the reference) -> name in the files.
        pattern: length -> (Q, K) bool, who attends to whom.
        shift: 1 where a row predicts its successor.
        mask: id of the mask.
        names_mask: whether `tokenizer_config.json` names the mask.
        generation: its `generation_config.json`; empty: it has none.
        num_text: ids that a text may hold; behind them stand pictures.
        specials: tokens of its tokenizer besides those of all; the first one begins a text.
        rows: of its embedding.
        never: ids that no text without holes may hold.
    """

    name: str
    config: dict[str, Any]
    reference: tuple[type[nn.Module], type, dict[str, Any]]
    pattern: Callable[[int], Tensor]
    names: Callable[[str], str] = str
    shift: int = 0
    mask: int = MASK
    names_mask: bool = False
    generation: dict[str, Any] = field(default_factory=dict)
    num_text: int = ROWS
    specials: tuple[str, ...] = ()
    rows: int = ROWS
    never: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """What `config.json` says that it is."""
        return str(self.config.get("model_type", self.config.get("_class_name")))

    def model(self, seed: int = 0) -> nn.Module:
        """The reference with random weights, biases and norms included."""
        kind, config_class, fields = self.reference
        config = config_class(
            vocab_size=self.rows,
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=GROUPS,
            attn_implementation="eager",
            **fields,
        )
        torch.manual_seed(seed)
        model = kind(config).eval()
        for name, weight in model.named_parameters():
            is_norm = name.endswith(("norm.weight", "layernorm.weight"))
            nn.init.normal_(weight, 1.0 if is_norm else 0.0, 0.1 if is_norm else 0.25)
        return model

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The reference's weights under the names and in the shapes of the files."""
        return {
            self.names(name): weight.detach().clone()
            for name, weight in model.state_dict().items()
            if not (name == "lm_head.weight" and model.config.tie_word_embeddings)
        }

    def write(self, folder: Path, model: nn.Module, num_files: int = 1) -> Path:
        """The files as they are published; returns the folder."""
        folder.mkdir(parents=True)
        write_json(folder / "config.json", self.config)
        if self.generation:
            write_json(folder / "generation_config.json", self.generation)
        write_weights(folder, self.weights(model), num_files)
        write_tokenizer(folder, self.names_mask, self.specials)
        return folder

    def logits(self, model: nn.Module, ids_BL: Tensor) -> Tensor:
        """(B, L, V) logits under the family's pattern, not shifted."""
        length = ids_BL.shape[1]
        mask = torch.zeros(1, 1, length, length)
        mask.masked_fill_(~self.pattern(length), torch.finfo(mask.dtype).min)
        with torch.no_grad():
            return model(ids_BL, attention_mask=mask.expand(len(ids_BL), -1, -1, -1)).logits

    def decoding_logits(self, model: nn.Module, ids_BL: Tensor, num_prompt: int) -> Tensor:
        """(B, L, V) logits as the family's loop reads them."""
        del num_prompt
        return self.logits(model, ids_BL)


def full(length: int) -> Tensor:
    """Everybody attends to everybody."""
    return torch.ones(length, length, dtype=torch.bool)


def causal(length: int) -> Tensor:
    """Everybody attends to what came before."""
    return full(length).tril()


def blocks_of(size: int) -> Callable[[int], Tensor]:
    """Everybody attends to the own block of an absolute grid and to those before."""

    def pattern(length: int) -> Tensor:
        block = torch.arange(length) // size
        return block[:, None] >= block[None, :]

    return pattern


def llada_name(name: str) -> str:
    """Llama's name of a tensor as LLaDA has it."""
    if name == "lm_head.weight":
        return "model.transformer.ff_out.weight"
    within = {
        "model.embed_tokens": "model.transformer.wte",
        "model.norm": "model.transformer.ln_f",
        "model.layers": "model.transformer.blocks",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ff_norm",
        "self_attn.o_proj": "attn_out",
        "self_attn.": "",
        "mlp.gate_proj": "ff_proj",
        "mlp.up_proj": "up_proj",
        "mlp.down_proj": "ff_out",
    }
    for theirs, ours in within.items():
        name = name.replace(theirs, ours)
    return name


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def write_weights(folder: Path, weights: dict[str, Tensor], num_files: int) -> None:
    """One file, or an index and several."""
    if num_files == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(weights)
    places = {}
    for number in range(num_files):
        file = f"model-{number + 1:05d}-of-{num_files:05d}.safetensors"
        own = {name: weights[name] for name in names[number::num_files]}
        save_file(own, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(own, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def write_tokenizer(folder: Path, names_mask: bool, specials: tuple[str, ...] = ()) -> None:
    """Bytes, four special tokens, and those of a family."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({one: n for n, one in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(one, special=True) for one in (*SPECIALS, *specials)])
    named = {"mask_token": "<|mask|>"} if names_mask else {}
    named |= {"bos_token": specials[0]} if specials else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", **named
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)


def sizes(**fields: Any) -> dict[str, Any]:
    """Fields of a Llama-like `config.json`."""
    return {
        "vocab_size": ROWS,
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": False,
        "eos_token_id": END,
        "pad_token_id": END,
        **fields,
    }


THETA = {"rope_type": "default", "rope_theta": 1_000_000.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LLAMA = (LlamaForCausalLM, LlamaConfig, {"rms_norm_eps": 1e-5, "rope_parameters": THETA})
_QWEN2 = (Qwen2ForCausalLM, Qwen2Config, {"rope_parameters": THETA})
_QWEN3 = (Qwen3ForCausalLM, Qwen3Config, {"rope_parameters": THETA, "head_dim": HEAD_DIM})
_TIED = (Qwen3ForCausalLM, Qwen3Config, {**_QWEN3[2], "tie_word_embeddings": True})
LLADA_CONFIG = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "d_model": WIDTH,
    "n_heads": HEADS,
    "n_kv_heads": GROUPS,
    "n_layers": LAYERS,
    "mlp_hidden_size": HIDDEN,
    "activation_type": "silu",
    "block_type": "llama",
    "block_group_size": 1,
    "layer_norm_type": "rms",
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_theta": 1_000_000.0,
    "alibi": False,
    "attention_layer_norm": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "scale_logits": False,
    "vocab_size": ROWS,
    "embedding_size": ROWS,
    "max_sequence_length": 512,
    "weight_tying": False,
    "mask_token_id": MASK,
    "eos_token_id": END,
    "pad_token_id": END,
}

TABLE = (
    Published("llada", LLADA_CONFIG, LLAMA, full, llada_name),
    Published(
        "mmada",
        {**LLADA_CONFIG, "model_type": "mmada", "codebook_size": 16, "num_vq_tokens": 9},
        LLAMA,
        full,
        llada_name,
        num_text=256 + len(SPECIALS) + len(MMADA_SPECIALS),
        specials=MMADA_SPECIALS,
    ),
    Published(
        "illada",
        sizes(model_type="illada", mask_token_id=MASK, tie_word_embeddings=True),
        (LlamaForCausalLM, LlamaConfig, {"rope_parameters": THETA, "tie_word_embeddings": True}),
        full,
    ),
    Published(
        "dream-reasoner",
        sizes(model_type="Dream", mask_token_id=MASK, block_size=8, head_dim=HEAD_DIM),
        _QWEN3,
        blocks_of(8),
    ),
    Published(
        "dream",
        sizes(model_type="Dream", mask_token_id=MASK),
        _QWEN2,
        full,
        shift=1,
    ),
    Published(
        "sdar",
        sizes(model_type="sdar", mask_token_id=MASK, block_size=4, head_dim=HEAD_DIM),
        _QWEN3,
        blocks_of(4),
        generation={"eos_token_id": [END, 3]},
    ),
    Published(
        "fast-dllm-v2",
        sizes(model_type="Fast_dLLM_Qwen", mask_token_id=MASK, bd_size=8),
        _QWEN2,
        blocks_of(8),
        shift=1,
    ),
    Published("open-dllm", sizes(model_type="qwen2"), _QWEN2, full, shift=1, names_mask=True),
    Published(
        "a2d",
        sizes(model_type="a2d-qwen3", head_dim=HEAD_DIM),
        _QWEN3,
        full,
        names_mask=True,
    ),
    Published(
        "autoregressive",
        sizes(model_type="llama", rope_scaling=_LLAMA3),
        (LlamaForCausalLM, LlamaConfig, {"rope_parameters": {**THETA, **_LLAMA3}}),
        causal,
        shift=1,
        mask=len(SPECIALS) + 256,
    ),
    Published(
        "autoregressive",
        sizes(model_type="qwen2"),
        _QWEN2,
        causal,
        shift=1,
        mask=len(SPECIALS) + 256,
    ),
    Published(
        "autoregressive",
        sizes(model_type="qwen3", head_dim=HEAD_DIM, tie_word_embeddings=True),
        _TIED,
        causal,
        shift=1,
        mask=len(SPECIALS) + 256,
    ),
)
