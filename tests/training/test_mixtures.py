"""Training mixtures of experts: the balance loss, whole models, and adapters on experts."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from unidiff.bundled import bundled_checkpoint
from unidiff.data.collator import BlockCollator
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.routing import Routes
from unidiff.model.streams import training_streams
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.training.adapter_folder import record_of, save_adapter
from unidiff.training.balance import balance_loss, balance_term, recorded_routes
from unidiff.training.lora import LoRAOptions, add_lora
from unidiff.training.objective import BlockObjective
from unidiff.training.retain import adapters_off
from unidiff.training.uniform_objective import UniformObjective

EXPERTS: dict[str, Any] = {"num_experts": 4, "moe_intermediate_size": 16, "mlp_only_layers": [0]}
ON_EXPERTS = LoRAOptions(r=2, target_modules=("q_proj", "experts.up_proj", "experts.down_proj"))
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture
def mixed(tiny: ModuleType) -> Any:
    return tiny.tiny_model(**EXPERTS, initializer_range=0.2).eval()


def batch_of(tiny: ModuleType, count: int = 3) -> dict[str, Tensor]:
    source = tiny.Sentences()
    rows = [source.row(key, np.random.default_rng(key)) for key in range(count)]
    return BlockCollator()(
        [{"row": row, "key": key, "stream_position": key} for key, row in enumerate(rows)]
    )


def routes_of(logits_NX: Tensor, chosen: int) -> Routes:
    score_NX = logits_NX.softmax(-1)
    weight_NK, expert_NK = score_NX.topk(chosen, dim=-1)
    return Routes(score_NX, expert_NK, weight_NK)


def test_balance_is_that_of_transformers() -> None:
    logits = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    is_real = torch.arange(30) % 4 > 0
    theirs = load_balancing_loss_func((logits,), 8, 2, is_real.view(3, 10))
    torch.testing.assert_close(balance_loss(routes_of(logits, 2), is_real), theirs)


def test_balance_is_least_where_tokens_are_spread_evenly() -> None:
    even = torch.eye(8) * 9.0
    everything = torch.ones(8, dtype=torch.bool)
    assert balance_loss(routes_of(even, 1), everything).item() == pytest.approx(1.0)
    crowded = even[:1].expand(8, -1)
    assert balance_loss(routes_of(crowded, 1), everything).item() == pytest.approx(8.0, rel=0.01)
    sigmoid = Routes(torch.full((8, 8), 0.3), torch.eye(8).argmax(-1)[:, None], torch.ones(8, 1))
    assert balance_loss(sigmoid, everything).item() == pytest.approx(1.0)


def uniform_model(tiny: ModuleType, coefficient: float) -> Any:
    fields = {"noise_process": "uniform", "router_aux_loss_coef": coefficient}
    return tiny.tiny_model(**EXPERTS, **fields, uniform_prediction="leave_one_out").eval()


@pytest.mark.parametrize("kind", ["absorbing", "uniform"])
def test_the_coefficient_adds_the_balance_of_real_tokens(tiny: ModuleType, kind: str) -> None:
    losses, term = [], 0.0
    batch = batch_of(tiny)
    for coefficient in (0.0, 0.5):
        if kind == "uniform":
            model, objective = uniform_model(tiny, coefficient), UniformObjective()
        else:
            model = tiny.tiny_model(**EXPERTS, router_aux_loss_coef=coefficient).eval()
            objective = BlockObjective()
        with recorded_routes(model) as routes:
            losses.append(objective(model, batch, model.config)[0])
        streams = training_streams(batch, model.config.grid)
        assert len(routes) == 1
        term = balance_term(routes, streams, model.config)
    assert (batch["sample_ids"] < 0).any()  # padding, whose routes must not count
    streams = training_streams(batch, None)
    is_real = torch.cat([streams.context.is_real_BN, streams.canvas.is_real_BN], 1).flatten()
    balance = balance_loss(routes[0], is_real)
    assert not torch.isclose(balance, balance_loss(routes[0], torch.ones_like(is_real)))
    num_labels = (batch["labels"] != -100).sum()
    torch.testing.assert_close(term, 0.5 * balance * num_labels)
    torch.testing.assert_close((losses[1] - losses[0]).float(), 0.5 * balance)


def test_the_balance_reaches_the_router_and_nothing_is_left_behind(mixed: Any) -> None:
    with recorded_routes(mixed) as routes:
        mixed(IDS)
    mixed(IDS)
    assert len(routes) == 1
    router = mixed.model.layers[1].mlp.gate
    balance_loss(routes[0], torch.ones(6, dtype=torch.bool)).backward()
    assert router.weight.grad.abs().sum() > 0


def test_a_model_of_experts_learns(tiny: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    plain = tiny.tiny_model
    monkeypatch.setattr(tiny, "tiny_model", lambda: plain(**EXPERTS, router_aux_loss_coef=0.01))
    trainer = tiny.tiny_trainer(tmp_path, steps=30)
    before = trainer.model.state_dict()["model.layers.1.mlp.experts.up_proj"].clone()
    trainer.train()
    losses = tiny.losses_of(trainer)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    moved = trainer.model.state_dict()["model.layers.1.mlp.experts.up_proj"] - before
    assert (moved.flatten(1).abs().amax(1) > 1e-3).all()  # every expert
    assert math.isfinite(losses[-1])


def adapted(tiny: ModuleType, options: LoRAOptions = ON_EXPERTS) -> Any:
    """A model whose adapter says something."""
    model = add_lora(tiny.tiny_model(**EXPERTS, initializer_range=0.2), options)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(7))
    return model.eval()


def test_an_adapter_on_experts_starts_as_the_base_and_can_be_switched_off(mixed: Any, tiny) -> None:
    before = mixed(IDS).logits
    torch.testing.assert_close(add_lora(mixed, ON_EXPERTS)(IDS).logits, before)
    model = adapted(tiny)
    on = model(IDS).logits
    assert not torch.allclose(on, before, atol=0.1)
    with adapters_off(model):
        torch.testing.assert_close(model(IDS).logits, before)
    torch.testing.assert_close(model(IDS).logits, on)


def test_gradients_reach_every_chosen_expert_and_no_base(tiny: ModuleType) -> None:
    model = adapted(tiny)
    model(IDS, labels=IDS).token_losses.sum().backward()
    trained = {name for name, one in model.named_parameters() if one.grad is not None}
    assert trained
    assert all("lora_" in name for name in trained)
    assert {name.split(".lora_")[0].rpartition("layers.")[2] for name in trained} == {
        "0.self_attn.q_proj",
        "1.self_attn.q_proj",
        "1.mlp.experts",
        "1.mlp.experts.base_layer",
    }


def test_an_adapter_on_experts_is_saved_loaded_and_merged(tiny: ModuleType, tmp_path: Path) -> None:
    base = tiny.tiny_model(**EXPERTS, initializer_range=0.2)
    base.save_pretrained(tmp_path / "base")
    fresh = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "base", dtype=torch.float32)
    record = record_of(fresh, "")
    model = adapted(tiny)
    expected = model(IDS).logits
    processor = UniDiffProcessor.from_pretrained(bundled_checkpoint())
    save_adapter(model, tmp_path / "adapter", processor, record)
    loaded = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    torch.testing.assert_close(loaded.eval()(IDS).logits, expected)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(IDS).logits, expected, rtol=1e-4, atol=1e-5)
    assert merged.state_dict().keys() == base.state_dict().keys()


def test_layers_limit_which_experts_are_adapted(tiny: ModuleType) -> None:
    options = LoRAOptions(r=2, target_modules=("experts.up_proj",), layers=(1,))
    model = add_lora(tiny.tiny_model(num_experts=4), options)
    names = [name for name, one in model.named_parameters() if one.requires_grad]
    assert {name.split(".")[2] for name in names} == {"1"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 0.1, "target_modules": ("experts.up_proj",)}, "without dropout"),
        ({"target_modules": ("experts.gate",)}, r"no target modules \['experts.gate'\]"),
        ({"target_modules": ("gate_proj",)}, "no target modules"),
    ],
)
def test_what_cannot_be_adapted_is_named(tiny: ModuleType, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        add_lora(tiny.tiny_model(num_experts=4), LoRAOptions(r=2, **options))


def test_default_targets_are_those_that_the_model_has(tiny: ModuleType) -> None:
    model = add_lora(tiny.tiny_model(num_experts=4), LoRAOptions(r=2))
    names = [name for name, one in model.named_parameters() if one.requires_grad]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {
        f"{one}_proj" for one in "qkvo"
    }


def test_rows_of_several_adapters_are_refused_on_experts(tiny: ModuleType) -> None:
    model = adapted(tiny)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]), "second")
    with pytest.raises(ValueError, match="the model has one of its experts"):
        model.generate(IDS, max_new_tokens=2, adapter_names=["second"])
