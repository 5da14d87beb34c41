"""Muon in the arithmetic that the processor has.

`torch.optim.Muon` orthogonalises in bfloat16 alone. On a CPU that does not know it a product of 192
by 512 ran at 4.5 GFLOP/s, in float32 at 74 (EPYC with AVX2, torch 2.13, one thread), and a step of
3.2 M parameters took six seconds. In bfloat16 this one computes what torch's does, bit for bit.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .precision import knows_bfloat16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration
NUM_ITERATIONS = 5
_EPSILON = 1e-7


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix with all singular values near one, in `dtype`; same shape.

    Args:
        matrix: (M, N).
        dtype: of the iteration.

    Source: Newton-Schulz iteration of Muon (Jordan et al. 2024); checked against
        `torch.optim.Muon` in tests/training/test_muon.py.
    """
    first, second, third = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.to(dtype, copy=True)
    found = found.T if is_tall else found
    found.div_(found.norm().clamp(min=_EPSILON))
    for _ in range(NUM_ITERATIONS):
        gram = found @ found.T
        update = torch.addmm(gram, gram, gram, beta=second, alpha=third)
        found = torch.addmm(found, update, found, beta=first)
    return found.T if is_tall else found


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, scaled to the size of AdamW's updates.

    Source: Muon (Jordan et al. 2024) with Nesterov momentum; scale and decoupled weight decay of
        arXiv 2502.16982.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Optimizer of matrices.

        Args:
            matrices: parameters (M, N).
            lr: rate, as AdamW's.
            weight_decay: decoupled.
            momentum: in [0, 1).
            dtype: of the orthogonalisation; None: bfloat16 where the processor knows it.

        Raises:
            ValueError: if a parameter is not two-dimensional.
        """
        matrices = list(matrices)
        if wrong := [tuple(one.shape) for one in matrices if one.ndim != 2]:
            raise ValueError(f"Muon updates matrices; got parameters of the shapes {wrong}")
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype or (torch.bfloat16 if knows_bfloat16() else torch.float32)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; raises ValueError for a closure, which it does not need."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """One parameter's update."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum_buffer"], group["momentum"])
        rate = group["lr"] * 0.2 * max(parameter.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalised(ahead, self._dtype), alpha=-rate)
