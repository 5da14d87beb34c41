"""Muon and AdamW as one optimizer: it is both, restores both, and serves one scheduler."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from unidiff.model import UniDiffConfig, UniDiffForBlockDiffusion
from unidiff.training.muon import Muon
from unidiff.training.optimizer import MuonWithAdamW, OptimizerOptions, build_optimizer

OPTIONS = OptimizerOptions(learning_rate=0.02, weight_decay=0.1)


def toy(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3, bias=False))


def split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    parameters = list(model.parameters())
    return [p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2]


def train(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.randn(4, 6, generator=generator)).square().sum()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_does_what_both_parts_do() -> None:
    model, expected = toy(), toy()
    train(model, [MuonWithAdamW(*split(model), OPTIONS)], range(4))
    matrices, others = split(expected)
    muon = Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95)
    adamw = torch.optim.AdamW(others, lr=0.02, betas=(0.9, 0.98), weight_decay=0.0)
    train(expected, [muon, adamw], range(4))
    assert_equal(model, expected)


def test_an_adapter_is_trained_by_adamw_alone() -> None:
    config = UniDiffConfig(vocab_size=24, hidden_size=32, intermediate_size=32, head_dim=16)
    model = get_peft_model(
        UniDiffForBlockDiffusion(config), LoraConfig(target_modules=["q_proj"], r=2)
    )
    (only,) = build_optimizer(model, OPTIONS).parts
    assert type(only) is torch.optim.AdamW
    trained = [one for one in model.parameters() if one.requires_grad]
    assert len(trained) == len(only.param_groups[0]["params"]) == 2 * config.num_hidden_layers


def test_restored_state_continues_as_if_uninterrupted() -> None:
    whole = toy()
    train(whole, [MuonWithAdamW(*split(whole), OPTIONS)], range(6))
    first = toy()
    optimizer = MuonWithAdamW(*split(first), OPTIONS)
    train(first, [optimizer], range(3))
    assert len(optimizer.state) == 5
    state = copy.deepcopy(optimizer.state_dict())
    second = toy(seed=1)
    second.load_state_dict(first.state_dict())
    restored = MuonWithAdamW(*split(second), OptimizerOptions(learning_rate=9.0))
    restored.load_state_dict(state)
    assert [group["lr"] for group in restored.param_groups] == [0.02, 0.02]
    train(second, [restored], range(3, 6))
    assert_equal(whole, second)


def test_one_scheduler_moves_both_rates() -> None:
    model = toy()
    optimizer = MuonWithAdamW(*split(model), OPTIONS)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    before = copy.deepcopy(model.state_dict())
    train(model, [optimizer], range(1))
    scheduler.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [0.01, 0.01]
    assert not torch.equal(before["0.weight"], model.state_dict()["0.weight"])


def test_matrices_of_layers_go_to_muon_and_the_rest_to_adamw() -> None:
    model = UniDiffForBlockDiffusion(UniDiffConfig(tie_word_embeddings=False))
    model.model.norm.weight.requires_grad = False
    muon, adamw = build_optimizer(model, OPTIONS).parts
    names = {id(p): name for name, p in model.named_parameters()}
    first = {names[id(p)] for p in muon.param_groups[0]["params"]}
    second = {names[id(p)] for p in adamw.param_groups[0]["params"]}
    assert first == {n for n in names.values() if n.endswith("_proj.weight")}
    assert second == set(names.values()) - first - {"model.norm.weight"}
    assert adamw.param_groups[0]["weight_decay"] == 0.0


@pytest.mark.parametrize("kind", ["matrices", "others"])
def test_one_kind_of_parameter_is_enough(kind: str) -> None:
    model = toy()
    matrices, others = split(model)
    lists = (matrices, []) if kind == "matrices" else ([], others)
    optimizer = MuonWithAdamW(*lists, OPTIONS)
    before = copy.deepcopy(model.state_dict())
    train(model, [optimizer], range(2))
    changed = {n for n, p in model.state_dict().items() if not torch.equal(p, before[n])}
    assert changed == {n for n, p in model.named_parameters() if (p.ndim == 2) == (lists[1] == [])}


def test_no_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        MuonWithAdamW([], [], OPTIONS)


def test_a_state_of_another_optimizer_is_refused() -> None:
    optimizer = MuonWithAdamW(*split(toy()), OPTIONS)
    other = torch.optim.AdamW(toy().parameters())
    with pytest.raises(ValueError, match="expected the state of a MuonWithAdamW"):
        optimizer.load_state_dict(other.state_dict())


def test_closures_are_refused() -> None:
    with pytest.raises(ValueError, match="no closure"):
        MuonWithAdamW(*split(toy()), OPTIONS).step(lambda: 0.0)
