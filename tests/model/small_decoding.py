"""Tiny models with random weights in float64, prompts for them, and decoding in one line.

Sampled by default, so that a wrong random number or a wrong logit shows.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.generation.denoiser import Run
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion

CANVAS = 6
VOCAB = 48
CACHED = ("causal_context", "block_causal")
PATTERNS = (*CACHED, "full")
COMMON = {"do_sample": True, "temperature": 0.9, "eos_token_id": -1, "return_logprobs": True}


def tiny_model(pattern: str, **config: Any) -> UniDiffForBlockDiffusion:
    """Random weights wide enough apart that no two tokens tie."""
    torch.manual_seed(7)
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "head_dim": 16,
        "num_key_value_heads": 1,
        "canvas_length": CANVAS,
        "initializer_range": 0.25,
        "tie_word_embeddings": False,
        "attention_pattern": pattern,
        **config,
    }
    return UniDiffForBlockDiffusion(UniDiffConfig(**settings)).double().eval()


def prompts(lengths: list[int], side: str = "left") -> tuple[Tensor, Tensor]:
    """(ids, attention mask) of random prompts, padded on one side or in the middle."""
    generator = torch.Generator().manual_seed(3)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        tokens = torch.randint(4, VOCAB, (length,), generator=generator)
        columns = torch.arange(length)
        if side == "left":
            columns = columns + width - length
        elif side == "middle":
            columns = torch.where(columns < length // 2, columns, columns + width - length)
        ids[row, columns] = tokens
        mask[row, columns] = 1
    return ids, mask


def decode(model: UniDiffForBlockDiffusion, ids: Tensor, mask: Tensor, **options: Any) -> Any:
    """Full output of a sampled decode, options over the common ones."""
    settings = {**COMMON, "return_dict_in_generate": True, **options}
    return model.generate(ids, attention_mask=mask, **settings)


def responses(output: Any, prompt_width: int) -> list[list[int]]:
    """Generated tokens of each row without padding."""
    tokens = (output.tokens_per_forward * output.num_forwards).round().long().tolist()
    return [
        row[prompt_width : prompt_width + n]
        for row, n in zip(output.sequences.tolist(), tokens, strict=True)
    ]


def run_of(ids: list[int], start: int) -> Run:
    """A one-row run of text tokens that stand at `start` and after."""
    positions = np.broadcast_to(np.arange(start, start + len(ids)), (3, len(ids)))
    return Run.of([ids], [positions], torch.device("cpu"))
