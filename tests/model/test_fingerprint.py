"""Caches of other weights are recognised, however alike the models look."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from unidiff.model import fingerprint
from unidiff.model.fingerprint import weights_key

PROMPT = torch.tensor([[5, 6, 7, 8, 9]])
Build = Callable[..., Any]


def answer(model: Any, **arguments: Any) -> Any:
    options = {"max_new_tokens": 4, "eos_token_id": -1, "return_dict_in_generate": True}
    return model.generate(input_ids=PROMPT, **options, **arguments)


def test_the_same_weights_have_the_same_key(make_model: Build) -> None:
    assert weights_key(make_model().model) == weights_key(make_model().model)


@pytest.mark.parametrize(
    "name", ["embed_tokens.weight", "layers.1.mlp.up_proj.weight", "norm.weight"]
)
def test_an_update_of_a_weight_changes_the_key(make_model: Build, name: str) -> None:
    model = make_model(num_hidden_layers=3).model
    before = weights_key(model)
    with torch.no_grad():
        model.get_parameter(name).mul_(1.001)
    assert weights_key(model) != before


def test_the_key_reads_four_numbers_of_each_weight(
    make_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(num_hidden_layers=3).model
    read, real = [], fingerprint.hashlib.blake2b

    def counted(data: bytes, **options: Any) -> Any:
        read.append(len(data))
        return real(data, **options)

    monkeypatch.setattr(fingerprint.hashlib, "blake2b", counted)
    weights_key(model)
    num_weights = len([*model.parameters(), *model.buffers()])
    assert read == [4 * num_weights * torch.float64.itemsize]


def test_a_cache_of_its_own_is_taken(make_model: Build) -> None:
    model = make_model()
    past = answer(model).past_key_values
    assert past.weights_key == weights_key(model.model)
    assert torch.equal(answer(model, past_key_values=past).sequences, answer(model).sequences)


def test_another_model_of_the_same_shape_is_refused(make_model: Build) -> None:
    past = answer(make_model(initializer_range=0.3)).past_key_values
    model = make_model()
    with pytest.raises(ValueError, match=f"{past.weights_key}, this model has"):
        answer(model, past_key_values=past)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 3}, "its layers is 3, this model's is 2"),
        ({"num_key_value_heads": 2}, "its key-value heads is 2, this model's is 1"),
        ({"head_dim": 8}, "its head dim is 8, this model's is 16"),
    ],
)
def test_a_model_of_another_shape_is_refused(make_model: Build, fields: dict, message: str) -> None:
    past = answer(make_model(**fields)).past_key_values
    with pytest.raises(ValueError, match=message):
        answer(make_model(), past_key_values=past)


def test_another_number_format_is_refused(make_model: Build) -> None:
    past = answer(make_model().to(torch.bfloat16)).past_key_values
    with pytest.raises(ValueError, match=r"dtype is torch\.bfloat16, this model's is torch\.float"):
        answer(make_model(), past_key_values=past)


@pytest.mark.parametrize("past", [DynamicCache(), (), 3])
def test_what_is_no_cache_of_ours_is_refused(make_model: Build, past: Any) -> None:
    with pytest.raises(TypeError, match=f"BlockCache.*got {type(past).__name__}"):
        answer(make_model(), past_key_values=past)


def test_a_switched_adapter_is_refused(make_model: Build) -> None:
    """Also one that sits on neither the first nor the last layer."""
    config = LoraConfig(target_modules=["q_proj"], layers_to_transform=[1], init_lora_weights=False)
    adapted = get_peft_model(make_model(num_hidden_layers=3), config)
    adapted.add_adapter("second", config)
    past = answer(adapted).past_key_values
    answer(adapted, past_key_values=past)
    with adapted.disable_adapter(), pytest.raises(ValueError, match="other weights"):
        answer(adapted, past_key_values=past)
    adapted.set_adapter("second")
    with pytest.raises(ValueError, match="other weights"):
        answer(adapted, past_key_values=past)
    adapted.set_adapter("default")
    answer(adapted, past_key_values=past)
