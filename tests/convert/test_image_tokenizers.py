"""Image tokenizers of others: they load whole and give the reference's codes and pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unidiff.convert import tensors as stored
from unidiff.convert.image_families import IMAGE_FAMILIES
from unidiff.convert.image_tokenizers import open_image_tokenizer
from unidiff.tokens.image_loading import load_image_tokenizer
from unidiff.tokens.vq import VQImageTokenizer, VQImageTokenizerConfig

from .published import write_weights
from .published_images import IMAGE_TABLE, SIDES, PublishedImages, weights_of
from .reference_images import Diffusers, LlamaGen, Magvit

PUBLISHED = pytest.mark.parametrize("published", IMAGE_TABLE, ids=lambda one: one.label)


def random_pixels(seed: int = 0) -> torch.Tensor:
    """(2, 3, *SIDES) float32 in [-1, 1]."""
    values = np.random.default_rng(seed).uniform(-1, 1, (2, 3, *SIDES))
    return torch.tensor(values, dtype=torch.float32)


def random_codes(reference: Any, codebook_size: int) -> torch.Tensor:
    return torch.randint(0, codebook_size, (2, 3, 2), generator=torch.Generator().manual_seed(1))


def test_every_family_has_a_row() -> None:
    assert {one.name for one in IMAGE_FAMILIES} == {one.name for one in IMAGE_TABLE}


@PUBLISHED
def test_codes_and_pixels_equal_the_reference(published: PublishedImages, tmp_path: Path) -> None:
    reference = published.reference()
    folder = published.write(tmp_path / "foreign", reference)
    assert open_image_tokenizer(folder).family.name == published.name
    model = load_image_tokenizer(folder)
    pixels = random_pixels()
    theirs = pixels if published.lowest == -1 else (pixels + 1) / 2
    with torch.no_grad():
        expected = reference.encode(theirs)
    assert len(expected.unique()) > 3  # else any codes would do
    assert model.encode(pixels).tolist() == expected.tolist()
    assert model.get_image_tokens(pixels).tolist() == expected.flatten(1).tolist()
    if reference.decode is None:
        with pytest.raises(ValueError, match="without a decoder"):
            model.decode(expected)
        return
    codes = random_codes(reference, model.codebook_size)
    with torch.no_grad():
        drawn = reference.decode(codes)
    drawn = (drawn if published.lowest == -1 else drawn * 2 - 1).clamp(-1, 1)
    assert drawn.abs().lt(1).float().mean() > 0.3  # else clamping would hide everything
    torch.testing.assert_close(model.decode(codes), drawn, rtol=1e-5, atol=2e-5)


@PUBLISHED
def test_what_was_loaded_saves_and_loads_as_ours(
    published: PublishedImages, tmp_path: Path
) -> None:
    model = load_image_tokenizer(published.write(tmp_path / "foreign", published.reference()))
    model.save_pretrained(tmp_path / "native")
    again = load_image_tokenizer(tmp_path / "native")
    assert type(again) is type(model)
    assert again.config.model_type.startswith("unidiff_")
    pixels = random_pixels()
    assert torch.equal(again.encode(pixels), model.encode(pixels))
    assert not again.training
    assert not any(weight.requires_grad for weight in again.parameters())


def test_opening_reads_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = IMAGE_TABLE[1]
    folder = published.write(tmp_path / "foreign", published.reference())
    monkeypatch.setattr(stored, "_read_bytes", lambda *given: pytest.fail("a weight was read"))
    assert open_image_tokenizer(folder).config.codebook_size == 50


def test_shards_and_a_single_file_are_the_same(tmp_path: Path) -> None:
    reference = LlamaGen()
    whole = IMAGE_TABLE[1].write(tmp_path / "whole", reference)
    (tmp_path / "shards").mkdir()
    write_weights(tmp_path / "shards", weights_of(reference), 3)
    sources = (whole, whole / "model.safetensors", tmp_path / "shards")
    one, *others = [load_image_tokenizer(source).state_dict() for source in sources]
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_first_sign_of_magvit_is_worth_most() -> None:
    config = VQImageTokenizerConfig(
        **{"encoder_sizes": (8, 8), "encoder_blocks": (1, 1), "encoder_attention": ()},
        **{"decoder_sizes": (8, 8), "decoder_blocks": (1, 1), "decoder_attention": ()},
        **{"latent_size": 3, "code_size": 3, "codebook_size": 8, "lookup": "signs"},
        num_groups=4,
    )
    model = VQImageTokenizer(config)
    latent = torch.tensor([[0.1, -2.0, -0.1], [-1.0, 0.5, 0.0], [-1.0, -1.0, 9.0], [1.0, 1.0, 1.0]])
    codes = model.find(latent.T[None, :, None])
    assert codes.tolist() == [[[4, 2, 1, 7]]]
    expected = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]
    assert model.values(codes)[0, :, 0].T.tolist() == expected


def test_a_book_is_read_by_distance_or_by_angle() -> None:
    def model(lookup: str) -> VQImageTokenizer:
        config = VQImageTokenizerConfig(
            **{"encoder_sizes": (8,), "encoder_blocks": (1,), "encoder_attention": ()},
            **{"decoder_sizes": (8,), "decoder_blocks": (1,), "decoder_attention": ()},
            **{"latent_size": 2, "code_size": 2, "codebook_size": 2, "lookup": lookup},
            num_groups=4,
        )
        made = VQImageTokenizer(config)
        made.codebook.weight.data = torch.tensor([[9.0, 0.0], [0.5, 0.5]])
        return made

    latent = torch.tensor([2.0, 0.2]).view(1, 2, 1, 1)
    assert model("nearest").find(latent).item() == 1
    assert model("cosine").find(latent).item() == 0
    code = torch.zeros(1, 1, 1, dtype=torch.int64)
    assert model("nearest").values(code).flatten().tolist() == [9.0, 0.0]
    assert model("cosine").values(code).flatten().tolist() == [1.0, 0.0]


def test_no_pictures_give_no_codes(tmp_path: Path) -> None:
    for published in (IMAGE_TABLE[0], IMAGE_TABLE[1]):
        folder = published.write(tmp_path / published.label, published.reference())
        codes = load_image_tokenizer(folder).encode(torch.zeros(0, 3, *SIDES))
        assert codes.shape == (0, 3, 2)
        assert codes.dtype == torch.int64


def test_published_files_have_as_many_numbers_as_the_sizes_say() -> None:
    """LlamaGen's `vq_ds16_t2i.pt` has 287 920 306 bytes: weights, 65 536 counters, and names."""
    with torch.device("meta"):
        model = VQImageTokenizer(VQImageTokenizerConfig())
    numbers = sum(one.numel() for one in model.state_dict().values()) + 65536
    assert 0 < 287_920_306 - 4 * numbers < 150_000


def test_diffusers_range_of_pixels_follows_its_users(tmp_path: Path) -> None:
    rows = {one.label: one for one in IMAGE_TABLE}
    for label, lowest in (("diffusers-lumina", 0.0), ("diffusers-latent", -1.0)):
        folder = rows[label].write(tmp_path / label, rows[label].reference())
        assert open_image_tokenizer(folder).config.lowest_pixel == lowest


def test_the_reference_writes_what_was_published() -> None:
    """Names of a few tensors in each layout, from the projects' own files."""
    expected = {
        Magvit: {
            "encoder.down.1.block.0.nin_shortcut.weight": (64, 32, 1, 1),
            "encoder.quant_conv.weight": (4, 4, 1, 1),
            "decoder.up.4.upsample.conv.bias": (128,),
            "quantize.embedding": (16, 4),
        },
        LlamaGen: {
            "encoder.conv_blocks.4.attn.1.proj_out.weight": (128, 128, 1, 1),
            "decoder.conv_blocks.0.res.2.conv1.weight": (128, 128, 3, 3),
            "quantize.embedding.weight": (50, 8),
        },
    }
    for kind, names in expected.items():
        weights = weights_of(kind())
        assert {name: tuple(weights[name].shape) for name in names} == names


def test_numbers_of_the_weights_are_kept(tmp_path: Path) -> None:
    published = next(one for one in IMAGE_TABLE if one.label == "diffusers-latent")
    reference = published.reference()
    assert isinstance(reference, Diffusers)
    folder = published.write(tmp_path / "foreign", reference)
    model = load_image_tokenizer(folder)
    theirs = load_file(folder / published.file)["decoder.mid_block.attentions.0.to_k.weight"]
    assert torch.equal(model.decoder.middle.attention.k.weight[:, :, 0, 0], theirs)
