"""How well candidates of different lengths read: the same weights, left to right."""

# Shapes: R rows, L sequence, V ids.

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


@torch.inference_mode()
def successor_log_probs(
    model: Any, rows: Sequence[Sequence[int]], firsts: Sequence[int]
) -> np.ndarray:
    """(R,) summed log-probabilities of the tokens from `firsts` on, by the context's reading."""
    width = max(len(row) for row in rows)
    ids_RL = torch.zeros(len(rows), width, dtype=torch.int64, device=model.device)
    wanted_RL = torch.zeros(len(rows), width, dtype=torch.bool, device=model.device)
    for number, (row, first) in enumerate(zip(rows, firsts, strict=True)):
        ids_RL[number, : len(row)] = torch.tensor(row)
        wanted_RL[number, first : len(row)] = True
    logits_RLV = model(input_ids=ids_RL).logits[:, :-1].float()
    said_RL = logits_RLV.gather(-1, ids_RL[:, 1:, None])[..., 0] - logits_RLV.logsumexp(-1)
    return np.asarray((said_RL.double() * wanted_RL[:, 1:]).sum(1).cpu().numpy())
