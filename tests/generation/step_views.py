"""Steps made by hand, and what a strategy chose in them."""

import torch
from torch import Tensor

from unidiff.generation.options import OPTIONS
from unidiff.generation.order import StepView, UnmaskingStrategy
from unidiff.generation.strategies import unmasking_strategy


def strategy_of(name: str, **options: object) -> UnmaskingStrategy:
    """The strategy of that name, with options that differ from the defaults."""
    return unmasking_strategy({**OPTIONS, "unmasking_strategy": name, **options})


def view_of(confidence: list, masked: list, **changes: object) -> StepView:
    """A step of one or more rows, on the first of as many steps as there are positions."""
    confidence_BK = torch.tensor(confidence, dtype=torch.float64)
    masked_BK = torch.tensor(masked, dtype=torch.bool)
    rows, width = masked_BK.shape
    fields = {
        "confidence_BK": confidence_BK,
        "masked_BK": masked_BK,
        "step_B": torch.zeros(rows, dtype=torch.int64),
        "budget_B": torch.full((rows,), width),
        "total_B": masked_BK.sum(1),
        "threshold_B": torch.full((rows,), 0.9, dtype=torch.float64),
        "index_BK": torch.arange(width).expand(rows, width),
        "position_B3K": torch.arange(width).expand(rows, 3, width),
        "seed_B": torch.arange(rows),
        "logits_NV": torch.zeros(int(masked_BK.sum()), 2, dtype=torch.float64),
    }
    return StepView(**{**fields, **changes})


def columns(reveal_BK: Tensor) -> list[list[int]]:
    """Revealed columns of each row."""
    return [torch.nonzero(row)[:, 0].tolist() for row in reveal_BK]
