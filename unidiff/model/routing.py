"""Which experts of a mixture a token is given to, and how much each counts.

Knows scores and groups; knows nothing of what an expert computes.
"""

# Shapes: N tokens, D width, X experts, K experts of a token, G groups of experts.

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .configuration import UniDiffConfig

_EPSILON = 1e-20  # of the sum of weights; as DeepSeek-V3's code has it
_BEST_OF_GROUP = 2  # experts by whose scores a group is judged


class Routes(NamedTuple):
    """Where tokens go.

    Attributes:
        score_NX: (N, X) float, in [0, 1]: how well each expert suits.
        expert_NK: (N, K) int64, the experts chosen.
        weight_NK: (N, K) float, factor on what each of them says.
    """

    score_NX: Tensor
    expert_NK: Tensor
    weight_NK: Tensor


class UniDiffRouter(nn.Module):
    """Scores every expert by a linear map and chooses the best; in float32 at least.

    Each token is judged by itself: no expert has a capacity that other rows could fill.

    Source: softmax of the scores as in Qwen3-MoE; sigmoid, bias and groups as in DeepSeek-V3, arXiv
    2412.19437, section 2.1.2. Checked in tests/model/test_routing.py.
    """

    expert_bias: Tensor | None

    def __init__(self, config: UniDiffConfig) -> None:
        """A row of the weight for each expert; no gradient trains the bias."""
        super().__init__()
        self.config = config
        assert config.num_experts is not None
        self.weight = nn.Parameter(torch.zeros(config.num_experts, config.hidden_size))
        bias = torch.zeros(config.num_experts) if config.use_expert_bias else None
        self.register_buffer("expert_bias", bias)

    def forward(self, hidden_ND: Tensor) -> Routes:
        """Where (N, D) tokens go."""
        config = self.config
        score_NX = self._scores(hidden_ND)
        choice_NX = score_NX.detach()
        if self.expert_bias is not None:
            choice_NX = choice_NX + self.expert_bias.to(choice_NX.dtype)
        if config.n_group > 1:
            choice_NX = within_groups(choice_NX, config.n_group, config.topk_group)
        expert_NK = choice_NX.topk(config.num_experts_per_tok, dim=-1).indices
        weight_NK = score_NX.gather(1, expert_NK)
        if config.norm_topk_prob:
            weight_NK = weight_NK / (weight_NK.sum(-1, keepdim=True) + _EPSILON)
        return Routes(score_NX, expert_NK, weight_NK * config.routed_scaling_factor)

    def _scores(self, hidden_ND: Tensor) -> Tensor:
        """(N, X) scores in [0, 1]; rounding that depends on the batch must not choose."""
        dtype = torch.promote_types(hidden_ND.dtype, torch.float32)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            logit_NX = nn.functional.linear(hidden_ND.to(dtype), self.weight.to(dtype))
        is_softmax = self.config.router_scores == "softmax"
        return logit_NX.softmax(-1) if is_softmax else logit_NX.sigmoid()


def within_groups(choice_NX: Tensor, num_groups: int, num_kept: int) -> Tensor:
    """(N, X) scores with those of all but the best groups at minus infinity.

    Args:
        choice_NX: (N, X) scores; neighbours form a group.
        num_groups: that X is divided into.
        num_kept: groups that a token may choose from: those whose two best experts add up to most.
    """
    choice_NGx = choice_NX.unflatten(1, (num_groups, -1))
    group_NG = choice_NGx.topk(_BEST_OF_GROUP, dim=-1).values.sum(-1)
    kept_NG = group_NG.topk(num_kept, dim=-1).indices
    is_kept_NG = torch.zeros_like(group_NG, dtype=torch.bool).scatter(1, kept_NG, True)
    return choice_NGx.masked_fill(~is_kept_NG.unsqueeze(-1), -torch.inf).flatten(1)
