"""What LoRA adapts: the option line, what is trained, and what does not exist."""

import pytest
import torch

from unidiff.plugins.task import LoRADefaults
from unidiff.training.lora import LoRAOptions, add_lora, lora_options

DEFAULTS = LoRADefaults()


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("", {}),
        ("r=4", {"r": 4, "alpha": 8}),
        ("r=4, alpha=3", {"r": 4, "alpha": 3}),
        ("dropout=0.1", {"dropout": 0.1}),
        ("targets=q_proj+v_proj", {"target_modules": ("q_proj", "v_proj")}),
        ("layers=0-2+5", {"layers": (0, 1, 2, 5)}),
    ],
)
def test_a_line_changes_the_tasks_defaults(text, changed):
    own = LoRAOptions(DEFAULTS.r, DEFAULTS.alpha, DEFAULTS.dropout, DEFAULTS.target_modules)
    assert lora_options(text, DEFAULTS) == LoRAOptions(**{**vars(own), **changed})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rank=4", "rank=4"),
        ("r", "name=value"),
        ("r=4,r=5", "each once"),
        ("r=many", "many"),
        ("r=0", "r >= 1"),
        ("dropout=1", "dropout"),
        ("layers=5-2", "no layer"),
        ("layers=first", "0-2\\+5"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(text, words):
    with pytest.raises(ValueError, match=words):
        lora_options(text, DEFAULTS)


def test_only_the_adapter_is_trained_and_starts_as_the_base(tiny_model):
    ids = torch.tensor([[5, 6, 7, 8]])
    before = tiny_model(ids).logits
    add_lora(tiny_model, LoRAOptions(r=2))
    names = {name for name, one in tiny_model.named_parameters() if one.requires_grad}
    assert names
    assert all("lora_" in name for name in names)
    assert torch.equal(tiny_model(ids).logits, before)


def test_layers_limit_where_it_acts(tiny_model):
    add_lora(tiny_model, LoRAOptions(r=2, layers=(1,)))
    names = [name for name, one in tiny_model.named_parameters() if one.requires_grad]
    assert {name.split(".")[2] for name in names} == {"1"}


def test_new_ids_are_trained_too(tiny_model):
    add_lora(tiny_model, LoRAOptions(r=2, new_ids=(9, 11)))
    names = [name for name, one in tiny_model.named_parameters() if one.requires_grad]
    assert any("trainable_tokens_delta" in name for name in names)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_modules": ("query",)}, "no target modules"),
        ({"layers": (7,)}, "layers"),
        ({"new_ids": (100_000,)}, "new ids"),
    ],
)
def test_what_the_model_does_not_have_is_an_error(tiny_model, options, words):
    with pytest.raises(ValueError, match=words):
        add_lora(tiny_model, LoRAOptions(r=2, **options))
