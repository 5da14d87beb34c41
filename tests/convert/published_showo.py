"""Show-o as it is published, at a tiny size; the reference is transformers' Phi under its masks.

Heads are as wide as the published ones, which leave no trace in the tensors.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PhiConfig, PhiForCausalLM

from .published import ROWS, Published, causal

HEADS, HEAD_DIM = 2, 64
SPECIALS = (
    "<|startoftext|>",
    "[PAD]",
    "<|soi|>",
    "<|eoi|>",
    "<|sov|>",
    "<|eov|>",
    "<|t2i|>",
    "<|mmu|>",
    "<|t2v|>",
    "<|v2v|>",
    "<|lvg|>",
)
BOS = 260  # behind the tokens of every tokenizer of these tests
PAD, SOI, EOI, T2I, MMU = 261, 262, 263, 266, 267
FIRST = 271  # of the codes


@dataclass(frozen=True)
class ShowO(Published):
    """Causal, but that the tokens up to the end of a picture attend to each other."""

    def logits(self, model: nn.Module, ids_BL: Tensor) -> Tensor:
        """(B, L, V) logits, as in answers about a picture."""
        length = ids_BL.shape[1]
        sees = self.pattern(length).repeat(len(ids_BL), 1, 1)
        for row, ids in enumerate(ids_BL.tolist()):
            if EOI in ids:
                sees[row, :, : ids.index(EOI) + 1] = True
        return masked_logits(model, ids_BL, sees)


def masked_logits(model: nn.Module, ids_BL: Tensor, sees_BLL: Tensor) -> Tensor:
    """(B, L, V) logits where (B, L, L) says who attends to whom."""
    mask = torch.zeros(sees_BLL.shape).masked_fill_(~sees_BLL, torch.finfo(torch.float32).min)
    with torch.no_grad():
        return model(ids_BL, attention_mask=mask[:, None]).logits


def _tiny_phi(**sizes: Any) -> PhiConfig:
    """Phi's configuration with heads of the published width."""
    own = {
        "hidden_size": HEADS * HEAD_DIM,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
    }
    return PhiConfig(**{**sizes, **own})


def published(rows: int = ROWS, qk_layernorm: bool = False) -> ShowO:
    """A checkpoint with as many codes as rows are left."""
    return ShowO(
        "show-o",
        {
            "_class_name": "Showo",
            "_diffusers_version": "0.30.1",
            "w_clip_vit": False,
            "vocab_size": rows,
            "llm_vocab_size": PAD,
            "llm_model_path": "microsoft/phi-1_5",
            "codebook_size": rows - FIRST - 1,
            "num_vq_tokens": 9,
            "mask_token_id": rows - 1,
        },
        (PhiForCausalLM, _tiny_phi, {"qk_layernorm": qk_layernorm}),
        causal,
        "showo.{}".format,
        mask=rows - 1,
        num_text=FIRST,
        specials=SPECIALS,
        rows=rows,
        never=(SOI, EOI),
    )


SHOWOS = (published(), published(qk_layernorm=True))
