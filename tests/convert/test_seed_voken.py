"""Open-MAGVIT2 and IBQ as Lightning saves them: averages, sizes, and what is no such file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import save_file

from unidiff.convert.image_tokenizers import open_image_tokenizer
from unidiff.tokens.image_loading import load_image_tokenizer
from unidiff.tokens.open_magvit import OpenMagvitImageTokenizer, OpenMagvitImageTokenizerConfig
from unidiff.tokens.vq import VQImageTokenizer, VQImageTokenizerConfig

from .published_images import weights_of
from .reference_images import Reference
from .reference_seed_voken import IBQ, OpenMagvit, trained

BOTH = pytest.mark.parametrize("kind", [OpenMagvit, IBQ])


def saved(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file({name: one.contiguous() for name, one in weights.items()}, path)
    return path


@BOTH
def test_a_checkpoint_of_lightning_gives_its_averages(
    kind: type[Reference], tmp_path: Path
) -> None:
    averages = weights_of(kind())
    path = tmp_path / "imagenet256.ckpt"
    whole = {"state_dict": trained(averages), "epoch": 3, "optimizer_states": [{"state": {}}]}
    torch.save(whole, path)
    with pytest.raises(ValueError, match=r"pickles \(imagenet256\.ckpt\).*allow_pickle=True"):
        load_image_tokenizer(path)
    found = load_image_tokenizer(path, allow_pickle=True).state_dict()
    plain = load_image_tokenizer(saved(tmp_path / "averages.safetensors", averages)).state_dict()
    assert torch.equal(found["encoder.conv_in.weight"], averages["encoder.conv_in.weight"])
    assert all(torch.equal(found[name], plain[name]) for name in plain)


@BOTH
def test_averages_of_some_weights_are_refused(kind: type[Reference], tmp_path: Path) -> None:
    weights = trained(weights_of(kind()))
    del weights["model_ema.decoderconv_outbias"]
    path = saved(tmp_path / "model.safetensors", weights)
    with pytest.raises(ValueError, match=r"of some weights and none of decoder\.conv_out\.bias"):
        load_image_tokenizer(path)


@pytest.mark.parametrize(
    ("kind", "tensors", "words"),
    [
        (OpenMagvit, {"decoder.adaptive.4.gamma.bias": None}, r"norms\.0\.scale\.bias missing"),
        (OpenMagvit, {"encoder.conv_in.bias": torch.ones(32)}, r"encoder\.conv_in\.bias not exp"),
        (OpenMagvit, {"encoder.down.1.block.0.conv1.weight": None}, r"levels\.1\.0.*missing"),
        (OpenMagvit, {"encoder.conv_out.weight": None}, "lacks 'encoder.conv_out.weight'"),
        (OpenMagvit, {"decoder.norm_out.bias": torch.ones(16)}, r"has the shape \(16,\), and"),
        (OpenMagvit, {"encoder.conv_in.weight": torch.ones(2, 3, 3, 3, 3)}, "no image tokenizer"),
        (IBQ, {"decoder.up.4.attn.4.q.bias": None}, r"levels\.0\.attentions\.4\.q\.bias missing"),
        (IBQ, {"encoder.down.4.block.3.conv1.weight": None}, "not expected"),
        (IBQ, {"other.weight": torch.ones(1)}, r"nothing missing, other\.weight not expected"),
        # The VQGAN of taming-transformers: two blocks a level, and codes by distance.
        (IBQ, {"encoder.down.0.block.3.conv1.weight": None}, "holds no image tokenizer"),
    ],
)
def test_tensors_that_differ_are_named(
    kind: type[Reference], tensors: dict[str, torch.Tensor | None], words: str, tmp_path: Path
) -> None:
    weights = {**weights_of(kind()), **tensors}
    kept = {name: one for name, one in weights.items() if one is not None}
    with pytest.raises(ValueError, match=words):
        load_image_tokenizer(saved(tmp_path / "model.safetensors", kept))


def test_sizes_are_read_off_the_shapes(tmp_path: Path) -> None:
    path = saved(tmp_path / "magvit.safetensors", weights_of(OpenMagvit()))
    config: Any = open_image_tokenizer(path).config
    assert config.level_sizes == [32, 32, 64, 64, 128]
    assert (config.num_blocks, config.codebook_size, config.image_size) == (2, 32, 256)
    reference = OpenMagvit()
    reference.times = (1, 2, 2, 4)
    path = saved(tmp_path / "finer.safetensors", weights_of(reference))
    config = open_image_tokenizer(path).config
    assert (config.downsample_factor, config.image_size) == (8, 128)
    path = saved(tmp_path / "ibq.safetensors", weights_of(IBQ()))
    config = open_image_tokenizer(path).config
    assert (config.codebook_size, config.code_size, config.lookup) == (50, 24, "product")
    assert (config.encoder_attention, config.decoder_blocks) == ([4], [5] * 5)


def test_the_first_sign_of_open_magvit_is_worth_least() -> None:
    config = OpenMagvitImageTokenizerConfig(
        level_sizes=(8,), num_blocks=1, code_size=3, num_groups=4
    )
    model = OpenMagvitImageTokenizer(config)
    model.encoder.conv_out.weight.data.zero_()
    model.encoder.conv_out.bias.data = torch.tensor([1.0, -1.0, 1.0])
    assert model.encode(torch.zeros(1, 3, 1, 1)).tolist() == [[[5]]]
    model.encoder.conv_out.bias.data = torch.tensor([0.0, 1.0, -1.0])
    assert model.encode(torch.zeros(1, 3, 1, 1)).tolist() == [[[2]]]


def test_a_single_code_is_drawn(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.safetensors", weights_of(OpenMagvit()))
    drawn = load_image_tokenizer(path).decode(torch.tensor([[[3]], [[999]]]))
    assert drawn.shape == (2, 3, 16, 16)
    assert drawn.isfinite().all()
    last = load_image_tokenizer(path).decode(torch.tensor([[[31]]]))
    torch.testing.assert_close(drawn[1:], last, rtol=1e-5, atol=1e-5)


def test_a_row_is_found_by_its_inner_product() -> None:
    config = VQImageTokenizerConfig(
        **{"encoder_sizes": (8,), "encoder_blocks": (1,), "encoder_attention": ()},
        **{"decoder_sizes": (8,), "decoder_blocks": (1,), "decoder_attention": ()},
        **{"latent_size": 2, "code_size": 2, "codebook_size": 2, "lookup": "product"},
        num_groups=4,
    )
    model = VQImageTokenizer(config)
    model.codebook.weight.data = torch.tensor([[9.0, 0.0], [0.5, 0.5]])
    assert model.find(torch.tensor([0.5, 0.4]).view(1, 2, 1, 1)).item() == 0  # the farther one
    assert model.find(torch.tensor([-1.0, 0.5]).view(1, 2, 1, 1)).item() == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"level_sizes": ()}, "positive multiples of num_groups=32; got"),
        ({"level_sizes": (100,)}, "positive multiples of num_groups=32"),
        ({"num_blocks": 0}, "must be positive; got 0 and 18"),
        ({"code_size": 0}, "must be positive; got 4 and 0"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(StrictDataclassClassValidationError, match=words):
        OpenMagvitImageTokenizerConfig(**fields)


def test_the_references_write_what_was_published() -> None:
    """Names of a few tensors in each layout, from the projects' own files."""
    expected = {
        OpenMagvit: {
            "encoder.down.2.block.0.nin_shortcut.weight": (64, 32, 1, 1),
            "encoder.down.3.downsample.bias": (64,),
            "encoder.mid_block.1.norm2.weight": (128,),
            "decoder.adaptive.4.gamma.weight": (128, 5),
            "decoder.adaptive.0.beta.bias": (32,),
            "decoder.up.1.upsample.conv1.weight": (128, 32, 3, 3),
        },
        IBQ: {
            "encoder.down.4.attn.3.proj_out.weight": (128, 128, 1, 1),
            "decoder.up.4.attn.4.norm.weight": (128,),
            "decoder.up.0.block.4.conv2.weight": (32, 32, 3, 3),
            "post_quant_conv.weight": (24, 24, 1, 1),
        },
    }
    for kind, names in expected.items():
        weights = weights_of(kind())
        assert {name: tuple(weights[name].shape) for name in names} == names
        assert not any(name.endswith("temb_proj.weight") for name in weights)
