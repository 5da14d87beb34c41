"""Adaptive layer norms (adaLN) of a diffusion transformer: one vector moves every part of a block.

The vector tells how noisy the input is. Under absorbing noise the best denoiser does not depend on
the time (DESIGN decision 3), and weights without time conditioning are trained and read at noise
level 0 throughout; so the vector is that of level 0, whatever the input.

Source: DiT, arXiv 2212.09748, section 3.2 (adaLN-Zero), in the form that MDLM (arXiv 2406.07524)
and BD3-LM (arXiv 2503.09573) publish weights of. Checked in tests/convert/test_families.py.
"""

# Shapes: C size of the vector, D width.

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

_FREQUENCIES = 128  # of the noise level's sinusoid: as many cosines as sines


class UniDiffCondition(nn.Module):
    """The vector of noise level 0."""

    def __init__(self, size: int) -> None:
        """Two projections of the noise level's sinusoid."""
        super().__init__()
        self.in_proj = nn.Linear(2 * _FREQUENCIES, size)
        self.out_proj = nn.Linear(size, size)

    def forward(self) -> Tensor:
        """(C,) vector."""
        cosine = self.in_proj.bias.new_ones(_FREQUENCIES)
        sinusoid = torch.cat([cosine, torch.zeros_like(cosine)])
        return silu(self.out_proj(silu(self.in_proj(sinusoid))))


@dataclass(frozen=True)
class Part:
    """What stands around one part of a layer (attention, MLP) or before the head.

    Attributes:
        norm: of the part's input, or of the residual stream behind the part.
        shift_D: (D,) added to the normalised input; None: nothing is moved.
        scale_D: (D,) the normalised input counts 1 + scale times.
        gate_D: (D,) factor on the part's output; None: 1.
        is_behind: whether the norm stands behind the part; then nothing is moved.
        after: norm of the part's output; None: there is none.
    """

    norm: nn.Module
    shift_D: Tensor | None = None
    scale_D: Tensor | None = None
    gate_D: Tensor | None = None
    is_behind: bool = False
    after: nn.Module | None = None

    def enter(self, hidden: Tensor) -> Tensor:
        """(..., D) input of the part, of the (..., D) residual stream."""
        if self.is_behind:
            return hidden
        normal: Tensor = self.norm(hidden)
        if self.shift_D is None or self.scale_D is None:
            return normal
        return normal * (1 + self.scale_D) + self.shift_D

    def join(self, hidden: Tensor, output: Tensor) -> Tensor:
        """(..., D) residual stream behind the part, of that before it and the part's output."""
        if self.after is not None:
            output = self.after(output)
        total = hidden + (output if self.gate_D is None else output * self.gate_D)
        return self.norm(total) if self.is_behind else total
