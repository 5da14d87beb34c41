"""Which experts a token is given to: scores, bias, groups and weights, by hand and by rows."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Glm4MoeConfig
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeTopkRouter

from unidiff.model.configuration import UniDiffConfig
from unidiff.model.routing import UniDiffRouter, within_groups

GROUPED = {"router_scores": "sigmoid", "n_group": 4, "topk_group": 2, "use_expert_bias": True}


def router(**fields: Any) -> UniDiffRouter:
    settings = {"num_experts": 8, "num_experts_per_tok": 2, "hidden_size": 16, **fields}
    made = UniDiffRouter(UniDiffConfig(**settings))
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(made.weight, std=0.5, generator=generator)
    if made.expert_bias is not None:
        torch.nn.init.normal_(made.expert_bias, std=0.3, generator=generator)
    return made


def tokens(number: int = 40) -> Tensor:
    return torch.randn(number, 16, generator=torch.Generator().manual_seed(2))


def identity(**fields: Any) -> UniDiffRouter:
    """A router of four experts whose logits are the token itself."""
    made = router(num_experts=4, hidden_size=4, **fields)
    made.weight.data = torch.eye(4)
    return made


def test_softmax_weights_are_probabilities_of_the_best() -> None:
    logits = torch.tensor([[1.0, 3.0, 0.0, 2.0]])
    routes = identity(norm_topk_prob=False)(logits)
    assert routes.expert_NK.tolist() == [[1, 3]]
    torch.testing.assert_close(routes.weight_NK, logits.softmax(-1)[:, [1, 3]])
    normed = identity(norm_topk_prob=True, routed_scaling_factor=2.0)(logits)
    assert normed.weight_NK.sum().item() == pytest.approx(2.0)
    torch.testing.assert_close(normed.weight_NK, 2 * torch.tensor([[3.0, 2.0]]).softmax(-1))


def test_a_bias_moves_the_choice_and_no_weight() -> None:
    made = identity(router_scores="sigmoid", use_expert_bias=True, norm_topk_prob=False)
    made.expert_bias = torch.tensor([0.0, -1.0, 0.9, 0.0])
    routes = made(torch.tensor([[1.0, 3.0, 0.0, 2.0]]))
    assert routes.expert_NK.tolist() == [[2, 3]]
    torch.testing.assert_close(routes.weight_NK, torch.tensor([[0.0, 2.0]]).sigmoid())


def test_groups_are_chosen_by_their_two_best() -> None:
    # Groups of two: sums 0.9, 1.1, 0.8, 1.0. The best single expert, 0.85, is in none that is kept.
    scores = torch.tensor([[0.85, 0.05, 0.55, 0.55, 0.1, 0.7, 0.6, 0.4]])
    kept = within_groups(scores, num_groups=4, num_kept=2)
    assert kept.isinf().tolist() == [[True, True, False, False, True, True, False, False]]
    assert kept.topk(2).indices.tolist() == [[6, 2]]


def test_a_group_that_is_not_kept_is_not_chosen_however_low_the_others_are() -> None:
    scores = torch.tensor([[0.9, 0.8, -0.5, -0.6, 0.3, 0.3, 0.2, 0.3]])
    chosen = within_groups(scores, num_groups=4, num_kept=1).topk(2).indices
    assert chosen.tolist() == [[0, 1]]
    low = within_groups(scores - 2.0, num_groups=4, num_kept=1).topk(2).indices
    assert low.tolist() == [[0, 1]]


def test_grouped_routing_is_that_of_transformers() -> None:
    ours = router(**GROUPED, routed_scaling_factor=2.5)
    config = Glm4MoeConfig(
        hidden_size=16,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.5,
        norm_topk_prob=True,
    )
    theirs = Glm4MoeTopkRouter(config)
    theirs.weight.data, theirs.e_score_correction_bias.data = ours.weight.data, ours.expert_bias
    _, weight_NK, expert_NK = theirs(tokens())
    routes = ours(tokens())
    order_NK, their_order_NK = routes.expert_NK.argsort(-1), expert_NK.argsort(-1)
    assert torch.equal(routes.expert_NK.gather(1, order_NK), expert_NK.gather(1, their_order_NK))
    torch.testing.assert_close(
        routes.weight_NK.gather(1, order_NK), weight_NK.gather(1, their_order_NK)
    )


@pytest.mark.parametrize("fields", [{}, GROUPED], ids=["softmax", "grouped"])
def test_a_token_is_routed_by_itself(fields: dict[str, Any]) -> None:
    made = router(**fields)
    together = made(tokens())
    for row in (0, 17, 39):
        alone = made(tokens()[row : row + 1])
        assert torch.equal(alone.expert_NK[0], together.expert_NK[row])
        torch.testing.assert_close(alone.weight_NK[0], together.weight_NK[row])


def test_scores_of_bfloat16_are_computed_in_float32() -> None:
    made = router(**GROUPED).bfloat16()
    hidden = tokens().bfloat16()
    exact = made.float()(hidden.float())
    rounded = made.bfloat16()(hidden)
    assert rounded.weight_NK.dtype == torch.float32
    torch.testing.assert_close(rounded.score_NX, exact.score_NX, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made.float()(hidden.float()).score_NX, exact.score_NX)


def test_no_gradient_reaches_the_bias() -> None:
    made = router(**GROUPED)
    made(tokens()).weight_NK[:, 0].sum().backward()
    assert made.weight.grad.abs().sum() > 0
    assert [name for name, _ in made.named_parameters()] == ["weight"]
    assert "expert_bias" in made.state_dict()
