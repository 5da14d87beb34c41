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


def random_model(seed: int, **config: Any) -> UniDiffForBlockDiffusion:
    """A tiny model whose random weights lie wide enough apart that no two tokens tie."""
    torch.manual_seed(seed)
    settings = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "head_dim": 16,
        "num_key_value_heads": 1,
        "initializer_range": 0.25,
        **config,
    }
    return UniDiffForBlockDiffusion(UniDiffConfig(**settings)).eval()


def tiny_model(pattern: str, **config: Any) -> UniDiffForBlockDiffusion:
    """The model of the decoding tests, in float64."""
    settings = {"vocab_size": VOCAB, "canvas_length": CANVAS, "tie_word_embeddings": False}
    return random_model(7, attention_pattern=pattern, **{**settings, **config}).double()


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


def assert_rows_equal_alone(
    model: UniDiffForBlockDiffusion, lengths: list[int], seed: int, shared: dict, own: dict
) -> Any:
    """Decode prompts together and each alone; tokens, forwards and reasons must agree.

    Args:
        model: the model.
        lengths: tokens of each prompt.
        seed: of the batch; each row is decoded alone with its own of `row_seeds`.
        shared: options of every row.
        own: options with one value for each row.

    Returns:
        The output of the batch.
    """
    ids, mask = prompts(lengths)
    together = decode(model, ids, mask, seed=seed, **shared, **own)
    for row, length in enumerate(lengths):
        bare = ids[row : row + 1, ids.shape[1] - length :]
        mine = {name: values[row : row + 1] for name, values in own.items()}
        seeds = {"seed": together.row_seeds[row]}
        alone = decode(model, bare, torch.ones_like(bare), **seeds, **shared, **mine)
        assert responses(alone, length)[0] == responses(together, ids.shape[1])[row]
        assert alone.num_forwards[0] == together.num_forwards[row]
        assert alone.finish_reason[0] == together.finish_reason[row]
    return together


def run_of(ids: list[int], start: int) -> Run:
    """A one-row run of text tokens that stand at `start` and after."""
    positions = np.broadcast_to(np.arange(start, start + len(ids)), (3, len(ids)))
    return Run.of([ids], [positions], torch.device("cpu"))
