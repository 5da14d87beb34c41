"""Mixtures of experts: every token goes through a few of many small MLPs.

The weights of all experts are one stack per projection, and tokens are sorted by expert, so that a
projection is one grouped matrix product (`torch.nn.functional.grouped_mm`). No expert has a
capacity: what a token gets does not depend on what else is in the batch. Checked against a loop
over tokens in tests/model/test_experts.py.
"""

# Shapes: B batch, Q tokens of a row, N tokens, D width, X experts, K experts of a token,
# P = N * K pairs of a token and an expert, I width inside an expert, O outputs, C inputs.

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .configuration import UniDiffConfig
from .routing import UniDiffRouter

STACKS = ("gate_proj", "up_proj", "down_proj")  # the weights of `UniDiffExperts`
_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_ALIGNMENT_BYTES = 16  # of the rows that a grouped product reads
_OLDEST_GPU = (8, 0)  # compute capability that a grouped product needs


class UniDiffExperts(nn.Module):
    """SwiGLU MLPs, one behind the other in a stack per projection."""

    def __init__(self, config: UniDiffConfig) -> None:
        """Uninitialised stacks (X, I, D), (X, I, D) and (X, D, I)."""
        super().__init__()
        number, width, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        assert number is not None
        assert inner is not None  # filled by the configuration
        self.gate_proj = nn.Parameter(torch.empty(number, inner, width))
        self.up_proj = nn.Parameter(torch.empty(number, inner, width))
        self.down_proj = nn.Parameter(torch.empty(number, width, inner))
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor) -> Tensor:
        """(N, D) what the experts of each token say, weighted and summed.

        Args:
            hidden_ND: (N, D) tokens.
            expert_NK: (N, K) int64 experts of each.
            weight_NK: (N, K) factors.
        """
        gate_proj, up_proj, down_proj = self.gate_proj, self.up_proj, self.down_proj
        expert_P = expert_NK.flatten()
        order_P = expert_P.argsort(stable=True)
        stop_X = expert_P.bincount(minlength=len(gate_proj)).cumsum(0).to(torch.int32)
        rows_PD = hidden_ND[order_P // expert_NK.shape[1]]
        gate_PI = self.activation(grouped_linear(rows_PD, gate_proj, stop_X))
        inner_PI = gate_PI * grouped_linear(rows_PD, up_proj, stop_X)
        out_PD = grouped_linear(inner_PI, down_proj, stop_X)[order_P.argsort()]
        weighted_NKD = out_PD.unflatten(0, expert_NK.shape) * weight_NK.unsqueeze(-1)
        return weighted_NKD.sum(1).to(hidden_ND.dtype)


class UniDiffMixture(nn.Module):
    """The feed-forward of a layer with experts: those a token is given to, and those of all."""

    def __init__(self, config: UniDiffConfig, shared: nn.Module | None = None) -> None:
        """Router and experts.

        Args:
            config: sizes and the rules of the router.
            shared: what every token goes through besides; None: nothing.
        """
        super().__init__()
        self.gate = UniDiffRouter(config)
        self.experts = UniDiffExperts(config)
        self.shared_experts = shared

    def forward(self, hidden: Tensor, packed: object = None) -> Tensor:
        """Tensor of the same shape (..., D); `packed` is ignored, for nothing here is."""
        del packed
        hidden_ND = hidden.flatten(0, -2)
        _, expert_NK, weight_NK = self.gate(hidden_ND)
        output = self.experts(hidden_ND, expert_NK, weight_NK).view_as(hidden)
        return output if self.shared_experts is None else output + self.shared_experts(hidden)


def grouped_linear(rows_PC: Tensor, weight_XOC: Tensor, stop_X: Tensor) -> Tensor:
    """(P, O) products of rows sorted by expert with the weight of their own expert.

    One grouped product where torch has one for the type, the sizes and the device, else a loop over
    the experts that have rows. On a CPU both give the same bits.

    Args:
        rows_PC: (P, C), those of expert 0 first.
        weight_XOC: (X, O, C).
        stop_X: (X,) int32, behind the last row of each expert.
    """
    kind = rows_PC.device.type
    is_autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if is_autocast else weight_XOC.dtype
    rows_PC, weight_XOC = rows_PC.to(dtype), weight_XOC.to(dtype)
    if _has_grouped_product(weight_XOC):
        weight_XCO = weight_XOC.transpose(1, 2)
        return torch.nn.functional.grouped_mm(rows_PC, weight_XCO, offs=stop_X)
    return looped_linear(rows_PC, weight_XOC, stop_X)


def looped_linear(rows_PC: Tensor, weight_XOC: Tensor, stop_X: Tensor) -> Tensor:
    """`grouped_linear` by a product for each expert that has rows."""
    products, start = [], 0
    # Unbound, for the gradient of each row of a stack would be as large as the stack.
    for weight_OC, stop in zip(weight_XOC.unbind(), stop_X.tolist(), strict=True):
        if stop > start:
            products.append(nn.functional.linear(rows_PC[start:stop], weight_OC))
        start = stop
    if not products:
        return rows_PC.new_zeros(0, weight_XOC.shape[1])
    return torch.cat(products)


def _has_grouped_product(weight_XOC: Tensor) -> bool:
    """Whether torch multiplies such weights in groups."""
    size = weight_XOC.element_size()
    is_aligned = all(side * size % _ALIGNMENT_BYTES == 0 for side in weight_XOC.shape[1:])
    if weight_XOC.dtype not in _GROUPED_DTYPES or not is_aligned:
        return False
    if torch.compiler.is_compiling() and weight_XOC.dtype != torch.bfloat16:
        return False  # the compiler knows no other type
    if weight_XOC.is_cuda and torch.cuda.get_device_capability(weight_XOC.device) < _OLDEST_GPU:
        return False
    return hasattr(torch.nn.functional, "grouped_mm")  # torch 2.10
