"""Greedy decoding of any model, slowly: whole rows, no cache, one token a step.

What `generate()` must agree with under the options `PLAINLY`. Written for `verifying.py`, where the
model is somebody else's.
"""

# Shapes: L sequence, V ids.

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from unidiff.model.configuration import UniDiffConfig

Logits = Callable[[Tensor], Tensor]  # (L,) ids -> (L, V) as the model says them, not shifted
# Keywords of `generate()` over whatever a checkpoint saves.
PLAINLY: dict[str, Any] = {
    "unmasking_strategy": "static",
    "confidence_metric": "prob",
    "sub_block_length": None,
    "first_alone": False,
    "max_denoising_steps": None,
    "do_sample": False,
    "eos_token_id": -1,
}


def is_autoregressive(config: UniDiffConfig) -> bool:
    """Whether a checkpoint was never trained to fill masks."""
    return config.attention_pattern == "causal_context"


def masked_behind(prompt: Tensor, config: UniDiffConfig, num_masks: int) -> Tensor:
    """The prompt and masks behind it; the prompt alone for weights that know no mask."""
    if is_autoregressive(config):
        return prompt
    return torch.cat([prompt, prompt.new_full((num_masks,), config.mask_token_id)])


def greedy_tokens(
    logits: Logits, prompt: Tensor, config: UniDiffConfig, num_tokens: int
) -> list[int]:
    """The likeliest tokens behind a prompt, in each block the most certain position first.

    Args:
        logits: of the model, under the pattern of the configuration.
        prompt: (L,) int64.
        config: shift, pattern, blocks and mask.
        num_tokens: to decode.
    """
    fill = int(prompt[-1]) if is_autoregressive(config) else config.mask_token_id
    row, is_masked = prompt, torch.zeros(len(prompt), dtype=torch.bool)
    for start, shown in _windows(len(prompt), num_tokens, config):
        num_new = shown - len(row)
        row = torch.cat([row, row.new_full((num_new,), fill)])
        is_masked = torch.cat([is_masked, torch.ones(num_new, dtype=torch.bool)])
        is_open = is_masked & (torch.arange(len(row)) < start + _block(config))
        while bool(is_open.any()):
            law = _paired(logits(row), config).double().softmax(-1)
            certainty, likeliest = law.max(-1)
            place = int(certainty.masked_fill(~is_open, -1.0).argmax())
            row[place] = likeliest[place]
            is_open[place] = is_masked[place] = False
    return row[len(prompt) :].tolist()


def _block(config: UniDiffConfig) -> int:
    """Positions that are filled together."""
    return 1 if is_autoregressive(config) else config.canvas_length


def _windows(num_prompt: int, num_tokens: int, config: UniDiffConfig) -> Iterator[tuple[int, int]]:
    """(first position, length of the row shown) of every block, the prompt's last one included."""
    stop, size = num_prompt + num_tokens, _block(config)
    first = num_prompt // size * size if config.grid else num_prompt
    for start in range(first, stop, size):
        yield start, stop if config.attention_pattern == "full" else min(stop, start + size)


def _paired(logits_LV: Tensor, config: UniDiffConfig) -> Tensor:
    """(L, V) scores of each position's own text token; of none that stands for no text."""
    if config.logits_shift or is_autoregressive(config):
        logits_LV = torch.cat([logits_LV[:1], logits_LV[:-1]])
    logits_LV = logits_LV[:, : config.vocab_size].clone()
    logits_LV[:, config.layout.range_of("text").stop :] = -torch.inf
    layout = config.layout
    silent = [config.mask_token_id, layout.expand_token_id, layout.soft_token_id]
    silent += set(layout.reserved_token_ids) - set(layout.end_token_ids)
    if layout.delete_token_id not in layout.end_token_ids:
        silent.append(layout.delete_token_id)
    for token in silent:
        if token is not None and token < logits_LV.shape[1]:
            logits_LV[:, token] = -torch.inf
    return logits_LV
