"""What is wrong with an image tokenizer of others is said by name."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file, save_file

from unidiff import FSQImageTokenizer, UniDiffConfig, UniDiffModel
from unidiff.tokens.image import FSQImageTokenizerConfig
from unidiff.tokens.image_loading import load_image_tokenizer
from unidiff.tokens.image_tokenizer import ImageTokenizer
from unidiff.tokens.vq import VQImageTokenizerConfig

from .published import write_json
from .published_images import IMAGE_TABLE, PublishedImages, weights_of
from .reference_images import LlamaGen

ROWS = {one.label: one for one in IMAGE_TABLE}


def written(label: str, tmp_path: Path) -> tuple[PublishedImages, Path]:
    published = ROWS[label]
    return published, published.write(tmp_path / "foreign", published.reference())


def change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text()), **fields})


def rewrite(path: Path, **tensors: torch.Tensor | None) -> None:
    held = {**load_file(path), **tensors}
    save_file({name: one for name, one in held.items() if one is not None}, path)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"decoder.up.0.block.3.conv1.weight": None}, r"decoder\.levels\.4\.blocks\.3.* missing"),
        ({"encoder.down.4.attn.0.q.bias": torch.ones(128)}, r"attentions\.0\.q\.bias not expected"),
        ({"loss.logvar": torch.ones(1)}, r"nothing missing, loss\.logvar not expected"),
        ({"decoder.norm_out.bias": torch.ones(16)}, r"norm_out\.bias has the shape \(16,\), and"),
        ({"encoder.quant_conv.weight": None}, r"lacks 'encoder.quant_conv.weight'"),
        (
            {"quantize.power_vals": torch.tensor([1, 2, 4, 8])},
            r"power_vals is \[1, 2, 4, 8\]; .* from the highest to the lowest",
        ),
    ],
)
def test_tensors_that_differ_are_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor | None], words: str
) -> None:
    published, folder = written("magvit-v2", tmp_path)
    rewrite(folder / published.file, **tensors)
    with pytest.raises(ValueError, match=words):
        load_image_tokenizer(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"act_fn": "relu"}, "act_fn = 'relu'; what can be loaded is 'silu'"),
        ({"norm_type": "spatial"}, "norm_type = 'spatial'"),
        ({"in_channels": 1}, "in_channels = 1"),
        ({"down_block_types": ["DownEncoderBlock2D"]}, "what can be loaded are 3 of"),
        ({"up_block_types": ["UpDecoderBlock2D"] * 2 + ["UpBlock2D"]}, "UpBlock2D"),
        ({"layers_per_block": 3}, r"decoder\.levels\.0\.blocks\.3\.conv1.* missing"),
        ({"_class_name": "AutoencoderKL"}, r"says 'AutoencoderKL'\); what can be .*'magvit-v2'"),
    ],
)
def test_settings_that_cannot_be_loaded_are_named(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    _, folder = written("diffusers-lumina", tmp_path)
    change(folder, **fields)
    with pytest.raises(ValueError, match=words):
        load_image_tokenizer(folder)


def test_an_encoder_of_another_depth_is_no_llamagen(tmp_path: Path) -> None:
    reference = LlamaGen()
    reference.times = (1, 2, 4)
    folder = ROWS["llamagen-16"].write(tmp_path / "foreign", reference)
    with pytest.raises(ValueError, match=r"an encoder of 3 levels; LlamaGen published \[4, 5\]"):
        load_image_tokenizer(folder)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_named(tmp_path: Path, share: float) -> None:
    published, folder = written("magvit-v2", tmp_path)
    content = (folder / published.file).read_bytes()
    (folder / published.file).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"pytorch_model\.safetensors"):
        load_image_tokenizer(folder)


def test_a_folder_without_weights_says_what_was_expected(tmp_path: Path) -> None:
    published, folder = written("magvit-v2", tmp_path)
    (folder / published.file).unlink()
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.safetensors.*has \['config.json'"):
        load_image_tokenizer(folder)


@pytest.mark.parametrize("within", ["model", "state_dict", None])
def test_a_pickle_is_read_only_on_demand(tmp_path: Path, within: str | None) -> None:
    reference = LlamaGen()
    weights = weights_of(reference)
    path = tmp_path / "vq_ds16_t2i.pt"
    torch.save({within: weights, "steps": 3} if within else weights, path)
    with pytest.raises(ValueError, match=r"pickles \(vq_ds16_t2i\.pt\).*allow_pickle=True"):
        load_image_tokenizer(path)
    folder = ROWS["llamagen-16"].write(tmp_path / "safe", reference)
    expected = load_image_tokenizer(folder).state_dict()
    for source in (path, tmp_path):  # the file, and a folder with no other weights
        found = load_image_tokenizer(source, allow_pickle=True).state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(Trap.place),)


def test_a_pickle_that_runs_code_is_refused_on_demand_too(tmp_path: Path) -> None:
    Trap.place = tmp_path / "ran"
    path = tmp_path / "trap.pt"
    torch.save({"model": Trap()}, path)
    with pytest.raises(ValueError, match=r"trap\.pt holds more than tensors"):
        load_image_tokenizer(path, allow_pickle=True)
    assert not Trap.place.exists()
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="must hold tensors by name, got list"):
        load_image_tokenizer(path, allow_pickle=True)


@pytest.fixture(scope="module")
def magvit(tmp_path_factory: pytest.TempPathFactory) -> ImageTokenizer:
    _, folder = written("magvit-v2", tmp_path_factory.mktemp("magvit"))
    return load_image_tokenizer(folder)


def test_pixels_and_codes_of_a_wrong_kind_are_refused(magvit: ImageTokenizer) -> None:
    with pytest.raises(ValueError, match="multiples of 16; got 40 x 32"):
        magvit.encode(torch.zeros(1, 3, 40, 32))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\); got \(3, 32, 32\)"):
        magvit.encode(torch.zeros(3, 32, 32))
    with pytest.raises(TypeError, match=r"must be floats in \[-1, 1\]; got torch.uint8"):
        magvit.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(TypeError, match="codes must be integers"):
        magvit.decode(torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match=r"pass grid=\(h, w\)"):
        magvit.decode_image_tokens(torch.zeros(1, 6, dtype=torch.int64))


def test_codes_outside_the_book_are_clamped(magvit: ImageTokenizer) -> None:
    drawn = magvit.decode(torch.tensor([[[-3, 99]]]))
    assert torch.equal(drawn, magvit.decode(torch.tensor([[[0, 15]]])))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lookup": "angle"}, "lookup must be one of"),
        ({"lookup": "signs"}, "8 signs make 256 codes; got codebook_size=16384"),
        ({"encoder_blocks": (2, 2)}, "the encoder's levels differ"),
        ({"decoder_attention": (5,)}, "the decoder's levels differ"),
        ({"decoder_sizes": (100, 256, 256, 128, 128)}, "positive multiples of num_groups=32"),
        ({"decoder_sizes": (128,), "decoder_blocks": (1,)}, "as many levels in both halves"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(StrictDataclassClassValidationError, match=words):
        VQImageTokenizerConfig(**fields)


def test_a_model_of_ours_that_is_no_image_tokenizer_is_refused(tmp_path: Path) -> None:
    sizes = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = UniDiffConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, head_dim=8)
    UniDiffModel(config).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="UniDiffModel, which is no image tokenizer"):
        load_image_tokenizer(tmp_path)


def test_our_own_is_found_by_its_config(tmp_path: Path) -> None:
    config = FSQImageTokenizerConfig(levels=[3], hidden_sizes=[8], image_size=8)
    FSQImageTokenizer(config).save_pretrained(tmp_path)
    assert isinstance(load_image_tokenizer(tmp_path), FSQImageTokenizer)
