"""Families of experts: what is read when, which layers are dense, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen3MoeForCausalLM

from unidiff import UniDiffForBlockDiffusion
from unidiff.convert import tensors
from unidiff.convert.keys import Fused, Stacked, converted
from unidiff.convert.loading import open_foreign
from unidiff.convert.tensors import read_header

from .published import LAYERS, MASK
from .published_moe import EXPERTS, MIXTURES

BY_NAME = {one.name: one for one in MIXTURES}
RULES = [
    Stacked("layers.{n}.experts.{e}.up.weight", "layers.{n}.up", 3),
    Fused("layers.{n}.qkv", ("layers.{n}.q", "layers.{n}.k", "layers.{n}.v"), (4, 2, 2)),
]


def stored(path: Path, weights: dict[str, Tensor]) -> dict[str, Any]:
    save_file(weights, path)
    return dict(read_header(path).tensors)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    names = [f"layers.1.experts.{e}.up.weight" for e in range(3)]
    made = {name: torch.randn(5, 4) for name in names}
    return {**made, "layers.1.qkv": torch.randn(8, 4).bfloat16()}


def test_stacks_and_fused_tensors_go_both_ways(weights: dict[str, Tensor], tmp_path: Path) -> None:
    ours, left = converted(stored(tmp_path / "theirs.safetensors", weights), RULES)
    assert left == ()
    parts = {name: tensor.read() for name, tensor in ours.items()}
    experts = [weights[f"layers.1.experts.{e}.up.weight"] for e in range(3)]
    assert torch.equal(parts["layers.1.up"], torch.stack(experts))
    qkv = torch.cat([parts[f"layers.1.{one}"] for one in "qkv"])
    assert torch.equal(qkv, weights["layers.1.qkv"])
    assert {name: one.shape for name, one in ours.items()} == {
        name: tuple(one.shape) for name, one in parts.items()
    }
    back, left = converted(stored(tmp_path / "ours.safetensors", parts), RULES, backwards=True)
    assert left == ()
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name].read(), weight) for name, weight in weights.items())
    assert all(back[name].shape == tuple(weight.shape) for name, weight in weights.items())


def test_no_more_is_read_than_is_asked_for(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = converted(stored(tmp_path / "theirs.safetensors", weights), RULES)
    stack = {"layers.1.up": ours["layers.1.up"].read()}
    back, _ = converted(stored(tmp_path / "ours.safetensors", stack), RULES, backwards=True)
    read_bytes, sizes = tensors._read_bytes, []

    def counted(*args: Any) -> Tensor:
        tensor = read_bytes(*args)
        sizes.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(tensors, "_read_bytes", counted)
    back["layers.1.experts.2.up.weight"].read()  # one expert of the stack
    assert sizes == [5 * 4 * 4]
    ours["layers.1.k"].read()  # its rows of what is fused
    assert sizes == [80, 2 * 4 * 2]
    ours["layers.1.up"].read()  # expert by expert
    assert sizes == [80, 16, 80, 80, 80]


def test_stacks_that_cannot_be_made_are_left(weights: dict[str, Tensor], tmp_path: Path) -> None:
    name = "layers.1.experts.1.up.weight"
    for number, change in enumerate((weights[name].bfloat16(), torch.randn(6, 4), None)):
        changed = {**weights, name: change}
        if change is None:
            del changed[name]
        found = stored(tmp_path / f"{number}.safetensors", changed)
        ours, left = converted(found, RULES)
        assert "layers.1.up" not in ours
        assert "layers.1.experts.0.up.weight" in left


def test_too_many_fused_rows_are_named(tmp_path: Path) -> None:
    found = stored(tmp_path / "one.safetensors", {"layers.1.qkv": torch.randn(9, 4)})
    with pytest.raises(ValueError, match=r"'layers.1.qkv' with 4 \+ 2 \+ 2 rows, got 9"):
        converted(found, RULES)


def written(name: str, folder: Path, **changes: Any) -> Path:
    """A row's files with some fields of `config.json` changed."""
    row = BY_NAME[name]
    path = row.write(folder / "foreign", row.model()) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path.parent


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    folder = written("qwen3-moe", tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.experts.3.up_proj.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"experts.up_proj'?.* missing, .*experts\.0\.up_proj"):
        open_foreign(folder)


@pytest.mark.parametrize("number", [EXPERTS - 1, EXPERTS + 1])
def test_another_number_of_experts_is_named(number: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not those that its config"):
        open_foreign(written("qwen3-moe", tmp_path, num_experts=number))


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llada-moe", {"clip_qkv": 8.0}, "clip_qkv = 8.0"),
        ("llada-moe", {"moe_router_score_function": "sigmoid"}, "moe_router_score_function"),
        ("llada-moe", {"qk_layernorm": False}, "qk_layernorm = False"),
        ("llada-moe", {"shared_expert_intermediate_size": 8}, "shared_expert_intermediate_size"),
        ("llada2", {"use_bias": True}, "use_bias = True"),
        ("llada2", {"norm_topk_prob": False}, "norm_topk_prob = False"),
        ("llada2", {"rotary_dim": 8}, "rotary_dim = 8; what can be loaded is 4"),
        ("qwen3-moe", {"moe_intermediate_size": None}, "experts"),
    ],
)
def test_maths_that_the_model_has_not_is_named(
    family: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        open_foreign(written(family, tmp_path, **changes))


@pytest.mark.parametrize(
    ("fields", "dense"),
    [
        ({"decoder_sparse_step": 2}, [0]),
        ({"mlp_only_layers": [1]}, [1]),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, [0, 1]),
    ],
)
def test_dense_layers_are_those_of_transformers(
    fields: dict[str, Any], dense: list[int], tmp_path: Path
) -> None:
    row = BY_NAME["qwen3-moe"]
    kind, config, own = row.reference
    theirs = kind(config(**{**row.config, **own, **fields}))
    found = [not hasattr(layer.mlp, "experts") for layer in theirs.model.layers]
    assert [index for index in range(LAYERS) if found[index]] == dense
    folder = tmp_path / "foreign"
    theirs.save_pretrained(folder)
    ours = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    assert ours.config.mlp_only_layers == dense


def test_what_transformers_writes_is_read(tmp_path: Path) -> None:
    theirs = BY_NAME["qwen3-moe"].model()
    assert isinstance(theirs, Qwen3MoeForCausalLM)
    theirs.save_pretrained(tmp_path)
    ours = UniDiffForBlockDiffusion.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(ours(ids).logits[..., :-1], theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_the_mask_is_the_tokenizers_and_not_the_one_in_config(tmp_path: Path) -> None:
    folder = written("llada-moe", tmp_path)
    assert json.loads((folder / "config.json").read_text())["mask_token_id"] != MASK
    assert open_foreign(folder).config.mask_token_id == MASK


@pytest.mark.parametrize("kind", ["llada", "lladamoe", "llada_moe"])
def test_llada_moe_is_known_under_each_of_its_names(kind: str, tmp_path: Path) -> None:
    assert open_foreign(written("llada-moe", tmp_path, model_type=kind)).family.name == "llada-moe"


def test_biases_of_experts_stay_in_float32(tmp_path: Path) -> None:
    folder = written("llada2", tmp_path)
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.bfloat16)
    gate = model.model.layers[1].mlp.gate
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(gate.expert_bias, weights["model.layers.1.mlp.gate.expert_bias"])
    assert gate.weight.dtype == torch.bfloat16
    assert model.config.mixture_layers == (1,)
