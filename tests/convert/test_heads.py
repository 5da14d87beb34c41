"""Tensors that a file holds needlessly: a tied head, frequencies; and heads that contradict."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unidiff import UniDiffForBlockDiffusion
from unidiff.convert.writing import convert_checkpoint, export_checkpoint

from .published import LLADA_CONFIG, TABLE, Published
from .published_moe import MIXTURES

LLADA = replace(
    next(one for one in TABLE if one.name == "llada"),
    config={**LLADA_CONFIG, "weight_tying": True},
)
LLADA = replace(
    LLADA, reference=(*LLADA.reference[:2], {**LLADA.reference[2], "tie_word_embeddings": True})
)
LLADA2 = next(one for one in MIXTURES if one.name == "llada2")
TIED = [
    LLADA,
    *(one for one in TABLE if one.config.get("tie_word_embeddings")),
]
FREQUENCIES = ("model.rotary_emb.inv_freq", "model.layers.1.self_attn.rotary_emb.inv_freq")


def written(folder: Path, published: Published, as_pickle: bool, **more: Tensor) -> Path:
    """A checkpoint with tensors more; returns the folder."""
    published.write(folder, published.model())
    path = folder / "model.safetensors"
    weights = {**load_file(path), **more}
    if as_pickle:
        path.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, path, metadata={"format": "pt"})
    return folder


def head_of(published: Published) -> dict[str, Tensor]:
    """The head as a second tensor, under the published name."""
    return {published.names("lm_head.weight"): published.model().lm_head.weight.detach().clone()}


@pytest.mark.parametrize("as_pickle", [True, False])
@pytest.mark.parametrize(
    "published", TIED, ids=lambda one: f"{one.name}-{one.config['model_type']}"
)
def test_a_tied_head_and_frequencies_are_read_over(
    published: Published, as_pickle: bool, tmp_path: Path
) -> None:
    more = head_of(published)
    if published is not LLADA:  # whose class never saved them
        more |= {name: torch.arange(4.0) for name in FREQUENCIES}
    folder = written(tmp_path / "foreign", published, as_pickle, **more)
    model = UniDiffForBlockDiffusion.from_pretrained(
        folder, use_safetensors=False, dtype=torch.float32
    )
    assert model.config.tie_word_embeddings
    ids = torch.arange(12)[None]
    with torch.no_grad():
        found = model(ids).logits[..., : published.rows]
    expected = published.logits(published.model(), ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    native = convert_checkpoint(folder, tmp_path / "native", allow_pickle=as_pickle)
    back = load_file(export_checkpoint(native, tmp_path / "back") / "model.safetensors")
    expected = {**published.weights(published.model()), **more}
    assert set(back) == set(expected)
    assert all(torch.equal(back[name], one) for name, one in expected.items())


def test_frequencies_of_llada2_are_read_over(tmp_path: Path) -> None:
    names = ("model.rotary_emb.inv_freq", "model.layers.0.attention.rotary_emb.inv_freq")
    more = {name: torch.arange(4.0) for name in names}
    folder = written(tmp_path / "foreign", LLADA2, False, **more)
    UniDiffForBlockDiffusion.from_pretrained(folder)


@pytest.mark.parametrize("published", TIED, ids=lambda one: one.config["model_type"])
def test_a_head_that_contradicts_is_refused(published: Published, tmp_path: Path) -> None:
    ((name, head),) = head_of(published).items()
    head[3, 1] += 1e-3
    folder = written(tmp_path / "foreign", published, False, **{name: head})
    words = rf"hold '{name}' beside '.*' with other numbers: say tie_word_embeddings"
    with pytest.raises(ValueError, match=words):
        UniDiffForBlockDiffusion.from_pretrained(folder)
    with pytest.raises(ValueError, match=words):
        convert_checkpoint(folder, tmp_path / "native")
    assert not (tmp_path / "native").exists()


def test_a_head_of_another_shape_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    published = TIED[1]
    ((name, head),) = head_of(published).items()
    folder = written(tmp_path / "foreign", published, False, **{name: head[:-1].clone()})
    with pytest.raises(ValueError, match=r"with \(320, 32\).* and \(319, 32\)"):
        UniDiffForBlockDiffusion.from_pretrained(folder)


def test_the_head_of_what_was_trained_further_is_its_embedding(tmp_path: Path) -> None:
    published = TIED[1]
    folder = written(tmp_path / "foreign", published, False, **head_of(published))
    native = convert_checkpoint(folder, tmp_path / "native")
    weights = load_file(native / "model.safetensors")
    weights["model.embed_tokens.weight"] += 1
    save_file(weights, native / "model.safetensors", metadata={"format": "pt"})
    back = load_file(export_checkpoint(native, tmp_path / "back") / "model.safetensors")
    assert torch.equal(back["lm_head.weight"], weights["model.embed_tokens.weight"])
