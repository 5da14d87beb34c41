"""The balance loss of mixtures of experts: every expert is to get its share of the tokens.

`config.router_aux_loss_coef` weighs it, as in transformers; 0 leaves it out.
"""

# Shapes: B batch, L tokens of a row (context, then canvas), N tokens, X experts, K experts of a
# token.

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.routing import Routes, UniDiffRouter
from unidiff.model.streams import TrainingStreams


@contextmanager
def recorded_routes(model: nn.Module) -> Iterator[list[Routes]]:
    """A list that every router of a model adds its routes to while the context is open."""
    routes: list[Routes] = []

    def record(module: nn.Module, args: Any, output: Routes) -> None:
        del module, args
        routes.append(output)

    routers = [one for one in model.modules() if isinstance(one, UniDiffRouter)]
    handles = [one.register_forward_hook(record) for one in routers]
    try:
        yield routes
    finally:
        for handle in handles:
            handle.remove()


def routes_to_balance(
    model: nn.Module, config: UniDiffConfig
) -> AbstractContextManager[list[Routes]]:
    """`recorded_routes` where the balance loss counts; else a list that stays empty."""
    return recorded_routes(model) if config.router_aux_loss_coef else nullcontext([])


def balance_term(
    routes: Sequence[Routes], streams: TrainingStreams, config: UniDiffConfig
) -> Tensor | float:
    """What the balance loss adds to a batch's loss, which counts every labelled token.

    Args:
        routes: of the batch's forward, `recorded_routes`.
        streams: of the batch; padding is not counted.
        config: the model's.
    """
    if not config.router_aux_loss_coef or not routes:
        return 0.0
    is_real_BL = torch.cat([streams.context.is_real_BN, streams.canvas.is_real_BN], dim=1)
    num_labels = (streams.batch["labels"] != -100).sum()
    is_real_N = is_real_BL.flatten()
    losses = torch.stack([balance_loss(one, is_real_N) for one in routes])
    return config.router_aux_loss_coef * num_labels * losses.mean()


def balance_loss(routes: Routes, is_real_N: Tensor) -> Tensor:
    """How unevenly a router's tokens are spread: K where evenly, X where all choose the same K.

    Args:
        routes: of one layer.
        is_real_N: (N,) bool, tokens that count.

    Source: Switch Transformers, arXiv 2101.03961, equations 4 to 6, with K experts of a token as in
    transformers; sigmoid scores are normalised first (DeepSeek-V3, arXiv 2412.19437, equation 19).
    """
    real_N1 = is_real_N.unsqueeze(1).to(routes.score_NX.dtype)
    num_experts, num_real = routes.score_NX.shape[1], real_N1.sum().clamp(min=1)
    chosen_NX = torch.zeros_like(routes.score_NX).scatter(1, routes.expert_NK, 1.0)
    share_X = (chosen_NX * real_N1).sum(0) / num_real
    law_NX = routes.score_NX / routes.score_NX.sum(-1, keepdim=True)
    return num_experts * (share_X * (law_NX * real_N1).sum(0) / num_real).sum()
