"""Muon for the weight matrices, AdamW for the rest, as one torch optimizer.

This class only lets one scheduler, one checkpoint and one `step` serve both.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .muon import Muon


@dataclass(frozen=True)
class OptimizerOptions:
    """Rates of both parts.

    Attributes:
        learning_rate: peak rate of AdamW, and of Muon scaled to AdamW's update size
            (`match_rms_adamw`, arXiv 2502.16982).
        weight_decay: decoupled decay of the weight matrices; embeddings and norms have none.
        momentum: Muon's momentum.
        betas: AdamW's.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.98)


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimizer over two: `param_groups` are the very dictionaries of the parts."""

    def __init__(
        self, matrices: Iterable[Tensor], others: Iterable[Tensor], options: OptimizerOptions
    ) -> None:
        """Optimizer of two lists of parameters; one may be empty (an adapter has no norms).

        Raises:
            ValueError: if both lists are empty or one of `matrices` is not two-dimensional.
        """
        matrices, others = list(matrices), list(others)
        super().__init__(matrices + others, defaults={})
        rate = options.learning_rate
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(
                Muon(
                    matrices,
                    lr=rate,
                    weight_decay=options.weight_decay,
                    momentum=options.momentum,
                )
            )
        if others:
            self.parts.append(
                torch.optim.AdamW(others, lr=rate, betas=options.betas, weight_decay=0.0)
            )
        self._link()

    def _link(self) -> None:
        """Show the parts' groups and state as this optimizer's own."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self.state.clear()
        for part in self.parts:
            self.state.update(part.state)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of both parts; raises ValueError for a closure, which neither part needs."""
        if closure is not None:
            raise ValueError("MuonWithAdamW takes no closure")
        for part in self.parts:
            part.step()
            self.state.update(part.state)

    def state_dict(self) -> dict[str, Any]:
        """State of both parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both parts; raises ValueError for another optimizer's state."""
        if len(state_dict.get("parts", ())) != len(self.parts):
            raise ValueError(
                f"expected the state of a MuonWithAdamW, got keys {sorted(state_dict)}"
            )
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()


def build_optimizer(model: nn.Module, options: OptimizerOptions) -> MuonWithAdamW:
    """Optimizer of what is trained in a model: matrices inside layers by Muon, the rest by AdamW.

    The rest: embeddings, heads, norms, stacks of experts, and LoRA's factors, whose product is what
    has a spectrum.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        by_adamw = any(part in name for part in ("embed_", "_head", "lora_"))
        is_matrix = parameter.ndim == 2 and not by_adamw
        (matrices if is_matrix else others).append(parameter)
    return MuonWithAdamW(matrices, others, options)
