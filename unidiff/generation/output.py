"""What `generate` returns."""

# Shapes: B rows, L prompt columns, G widest response, K canvas.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from .rows import Row
from .trace import Trace


@dataclass
class UniDiffGenerateOutput(ModelOutput):
    """Result of `generate(return_dict_in_generate=True)`.

    Attributes:
        sequences: (B, L + G) int64, the prompt columns as passed and the response, pad id behind
            it.
        num_forwards: (B,) int64, forwards that chose a token of the row or stored a generated one.
        tokens_per_forward: (B,) float64, response tokens, the end token included, per forward; 0
            without a forward.
        finish_reason: "stop" (end token or criterion), "length" or "canvas" of each row.
        past_key_values: cache to pass to the next turn; None where nothing is reused.
        row_seeds: (B,) int64; `seed=row_seeds[i]` alone repeats row i.
        canvas: (B, K) int64 filled canvas, when one was given.
        logprobs: (B, G) float64 log-probability of each token when it was revealed, in nats; 0
            where pinned or padding.
        trace: reveals of each row, with `return_trace=True`.
    """

    sequences: Tensor | None = None
    num_forwards: Tensor | None = None
    tokens_per_forward: Tensor | None = None
    finish_reason: list[str] | None = None
    past_key_values: Any = None
    row_seeds: Tensor | None = None
    canvas: Tensor | None = None
    logprobs: Tensor | None = None
    trace: list[Trace] | None = None


def assemble(
    rows: Sequence[Row],
    prompt_BL: Tensor,
    pad_token_id: int,
    cache: Any,
    canvas_width: int | None,
    keeps_log_probs: bool,
    keeps_trace: bool,
) -> UniDiffGenerateOutput:
    """Output of finished rows, in the caller's order.

    Args:
        rows: one per row of the batch.
        prompt_BL: (B, L) prompt columns as passed.
        pad_token_id: id behind a row's last token.
        cache: handle for the next turn or None.
        canvas_width: columns of the canvas that the caller gave, or None; holes may have grown.
        keeps_log_probs: whether log-probabilities were asked for.
        keeps_trace: whether reveals were.
    """
    device = prompt_BL.device
    for row in rows:
        row.trace.keep(len(row.generated))
    width = max(len(row.generated) for row in rows)
    width = width if canvas_width is None else max(width, canvas_width)
    padded = [row.generated + [pad_token_id] * (width - len(row.generated)) for row in rows]
    generated_BG = torch.tensor(padded, dtype=torch.int64, device=device).view(len(rows), width)
    forwards_B = torch.tensor([row.num_forwards for row in rows], device=device)
    tokens_B = torch.tensor([row.num_chosen for row in rows], dtype=torch.float64, device=device)
    rate_B = torch.where(forwards_B > 0, tokens_B / forwards_B.clamp(min=1), 0.0)
    log_probs = None
    if keeps_log_probs:
        values = [row.log_probs + [0.0] * (width - len(row.log_probs)) for row in rows]
        log_probs = torch.tensor(values, dtype=torch.float64, device=device).view(len(rows), width)
    return UniDiffGenerateOutput(
        sequences=torch.cat([prompt_BL, generated_BG], dim=1),
        num_forwards=forwards_B,
        tokens_per_forward=rate_B,
        finish_reason=[str(row.finish_reason) for row in rows],
        past_key_values=cache,
        row_seeds=torch.tensor([row.settings.seed for row in rows], dtype=torch.int64),
        canvas=generated_BG if canvas_width is not None else None,
        logprobs=log_probs,
        trace=[row.trace for row in rows] if keeps_trace else None,
    )
