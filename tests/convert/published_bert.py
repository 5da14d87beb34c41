"""BERT and RoBERTa as they are published, at a tiny size; references are transformers' own."""

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from .published import END, HEADS, HIDDEN, LAYERS, ROWS, WIDTH, Published, full

PADDING = 1  # of RoBERTa; its positions begin behind this row
_SIZES = {
    "vocab_size": ROWS,
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_act": "gelu",
    "type_vocab_size": 2,
}


class Roberta(RobertaForMaskedLM):
    """RoBERTa that counts a token that looks like padding among its text."""

    def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
        position = torch.arange(input_ids.shape[1]) + PADDING + 1
        return super().forward(input_ids, position_ids=position.expand_as(input_ids), **kwargs)


BERTS = (
    Published(
        "bert",
        {
            "model_type": "bert",
            "architectures": ["BertForMaskedLM"],
            **_SIZES,
            "max_position_embeddings": 64,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
        },
        (BertForMaskedLM, BertConfig, {"max_position_embeddings": 64}),
        full,
        names_mask=True,
    ),
    Published(
        "roberta",
        {
            "model_type": "roberta",
            "architectures": ["RobertaForMaskedLM"],
            **_SIZES,
            "max_position_embeddings": 66,
            "layer_norm_eps": 1e-5,
            "type_vocab_size": 1,
            "pad_token_id": PADDING,
            "bos_token_id": 0,
            "eos_token_id": END,
        },
        (
            Roberta,
            RobertaConfig,
            {
                "max_position_embeddings": 66,
                "type_vocab_size": 1,
                "layer_norm_eps": 1e-5,
                "pad_token_id": PADDING,
            },
        ),
        full,
        names_mask=True,
    ),
)
BERT, ROBERTA = BERTS
