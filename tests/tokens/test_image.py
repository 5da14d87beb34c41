"""The image tokenizer: quantization, shapes, robustness, errors, saving."""

import itertools

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig, AutoModel

from unidiff.tokens.image import (
    FiniteScalarQuantizer,
    FSQImageTokenizer,
    FSQImageTokenizerConfig,
)


@pytest.fixture(scope="module")
def tokenizer() -> FSQImageTokenizer:
    config = FSQImageTokenizerConfig(
        levels=[8, 6, 5],
        hidden_sizes=[8, 16],
        num_encoder_blocks=1,
        num_decoder_blocks=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FSQImageTokenizer(config).eval()


def random_pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).uniform(-1, 1, shape)
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("levels", [[8, 6, 5], [2, 3], [8, 5, 5, 5], [7]])
def test_every_code_survives_the_round_trip_through_values(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    codes = torch.arange(int(np.prod(levels))).view(1, -1, 1)
    values = quantizer.to_values(codes)
    assert torch.equal(quantizer.to_codes(values), codes)
    assert values.abs().max() <= 1
    assert torch.unique(values[0, :, :, 0].T, dim=0).shape[0] == codes.numel()


def test_codes_count_levels_with_the_first_dimension_fastest() -> None:
    quantizer = FiniteScalarQuantizer([4, 3])
    expected = [(first, second) for second in (-1, 0, 1) for first in (-2, -1, 0, 1)]
    values = quantizer.to_values(torch.arange(12).view(1, 12, 1))[0, :, :, 0].T
    assert torch.allclose(values * torch.tensor([2.0, 1.0]), torch.tensor(expected).float())


@pytest.mark.parametrize("num_levels", [2, 3, 5, 6, 8])
def test_quantizing_a_sweep_reaches_exactly_all_levels_in_order(num_levels: int) -> None:
    quantizer = FiniteScalarQuantizer([num_levels])
    sweep = torch.linspace(-12, 12, 4001).view(1, 1, -1, 1)
    codes = quantizer.to_codes(quantizer.quantize(sweep)).flatten()
    assert torch.equal(torch.unique(codes), torch.arange(num_levels))
    assert (codes.diff() >= 0).all()


def test_a_zero_latent_lies_in_the_middle_level() -> None:
    quantizer = FiniteScalarQuantizer([8, 5])
    assert torch.equal(quantizer.quantize(torch.zeros(1, 2, 1, 1)), torch.zeros(1, 2, 1, 1))


def test_rounding_passes_gradients_straight_through() -> None:
    latent = random_pixels(1, 3, 4, 4).requires_grad_()
    FiniteScalarQuantizer([8, 6, 5]).quantize(latent).sum().backward()
    assert (latent.grad > 0).all()


def test_a_32_pixel_image_becomes_64_codes(tokenizer: FSQImageTokenizer) -> None:
    codes = tokenizer.encode(random_pixels(2, 3, 32, 32))
    assert codes.shape == (2, 8, 8)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < tokenizer.codebook_size == 240


@pytest.mark.parametrize(("height", "width"), [(4, 4), (28, 28), (32, 48), (64, 64)])
def test_other_multiples_of_the_factor_are_accepted(
    tokenizer: FSQImageTokenizer, height: int, width: int
) -> None:
    pixels = random_pixels(1, 3, height, width)
    codes = tokenizer.encode(pixels)
    assert codes.shape == (1, height // 4, width // 4)
    assert tokenizer.decode(codes).shape == pixels.shape


def test_codes_of_an_image_do_not_depend_on_its_batch(tokenizer: FSQImageTokenizer) -> None:
    pixels = random_pixels(5, 3, 32, 32)
    alone = torch.cat([tokenizer.encode(pixels[row : row + 1]) for row in range(5)])
    assert torch.equal(tokenizer.encode(pixels), alone)


def test_forward_is_encode_then_decode(tokenizer: FSQImageTokenizer) -> None:
    pixels = random_pixels(2, 3, 32, 32)
    output = tokenizer(pixels)
    assert torch.equal(output.codes, tokenizer.encode(pixels))
    decoded = tokenizer.decode(output.codes)
    assert torch.allclose(output.reconstruction.clamp(-1, 1), decoded, atol=1e-5)


def test_forward_reaches_every_parameter_with_a_gradient(tokenizer: FSQImageTokenizer) -> None:
    tokenizer.zero_grad()
    pixels = random_pixels(2, 3, 16, 16)
    (tokenizer(pixels).reconstruction - pixels).square().mean().backward()
    without = [name for name, value in tokenizer.named_parameters() if value.grad is None]
    tokenizer.zero_grad()
    assert without == []


def test_image_tokens_are_the_codes_in_raster_order(tokenizer: FSQImageTokenizer) -> None:
    pixels = random_pixels(2, 3, 16, 24)
    codes = tokenizer.encode(pixels)
    tokens = tokenizer.get_image_tokens(pixels)
    rows = itertools.product(range(4), range(6))
    assert all(tokens[0, place] == codes[0, r, c] for place, (r, c) in enumerate(rows))
    assert torch.equal(tokenizer.decode_image_tokens(tokens, grid=(4, 6)), tokenizer.decode(codes))


def test_image_tokens_without_a_grid_are_read_as_a_square(tokenizer: FSQImageTokenizer) -> None:
    tokens = torch.arange(64).view(1, 64)
    assert torch.equal(
        tokenizer.decode_image_tokens(tokens), tokenizer.decode(tokens.view(1, 8, 8))
    )


@pytest.mark.parametrize("extreme", [-(2**62), -1, 240, 2**62])
def test_codes_outside_the_codebook_decode_as_its_ends(
    tokenizer: FSQImageTokenizer, extreme: int
) -> None:
    decoded = tokenizer.decode(torch.full((1, 8, 8), extreme))
    end = 0 if extreme < 0 else 239
    assert torch.equal(decoded, tokenizer.decode(torch.full((1, 8, 8), end)))
    assert torch.isfinite(decoded).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integers_decode_to_finite_pixels_in_range(
    tokenizer: FSQImageTokenizer, dtype: torch.dtype
) -> None:
    codes = np.random.default_rng(1).integers(0, 255, (3, 8, 8))
    decoded = tokenizer.decode(torch.tensor(codes).to(dtype))
    assert torch.isfinite(decoded).all()
    assert decoded.min() >= -1
    assert decoded.max() <= 1


def test_an_empty_batch_stays_empty(tokenizer: FSQImageTokenizer) -> None:
    assert tokenizer.encode(torch.zeros(0, 3, 32, 32)).shape == (0, 8, 8)
    assert tokenizer.decode(torch.zeros(0, 8, 8, dtype=torch.int64)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32, 32), r"\(B, 3, H, W\)"),
        ((1, 1, 32, 32), r"\(B, 3, H, W\)"),
        ((1, 32, 32, 3), r"\(B, 3, H, W\)"),
        ((1, 3, 30, 32), "multiples of 4; got 30 x 32"),
        ((1, 3, 0, 32), "multiples of 4; got 0 x 32"),
    ],
)
def test_pixels_of_a_wrong_shape_are_refused(
    tokenizer: FSQImageTokenizer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(torch.zeros(shape))


def test_byte_pixels_are_refused(tokenizer: FSQImageTokenizer) -> None:
    with pytest.raises(TypeError, match="floats in"):
        tokenizer.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_codes_of_a_wrong_shape_or_type_are_refused(tokenizer: FSQImageTokenizer) -> None:
    with pytest.raises(ValueError, match=r"\(B, h, w\)"):
        tokenizer.decode(torch.zeros(1, 64, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(B, h \* w\)"):
        tokenizer.decode_image_tokens(torch.zeros(1, 8, 8, dtype=torch.int64))
    with pytest.raises(TypeError, match="integers"):
        tokenizer.decode(torch.zeros(1, 8, 8))


@pytest.mark.parametrize(("count", "grid"), [(63, None), (0, None), (64, (8, 7)), (64, (-8, -8))])
def test_a_grid_that_does_not_hold_the_codes_is_refused(
    tokenizer: FSQImageTokenizer, count: int, grid: tuple[int, int] | None
) -> None:
    with pytest.raises(ValueError, match="pass grid="):
        tokenizer.decode_image_tokens(torch.zeros(1, count, dtype=torch.int64), grid=grid)


@pytest.mark.parametrize(
    ("field", "value"),
    [("levels", [8, 1]), ("levels", []), ("hidden_sizes", [12, 16]), ("image_size", 30)],
)
def test_impossible_sizes_are_refused(field: str, value: object) -> None:
    with pytest.raises(StrictDataclassClassValidationError, match=f"ValueError: {field}"):
        FSQImageTokenizerConfig(**{field: value})


def test_the_default_config_gives_64_codes_of_a_codebook_of_240() -> None:
    config = FSQImageTokenizerConfig()
    assert (config.image_size // config.downsample_factor) ** 2 == 64
    assert config.codebook_size == 240


def test_a_saved_tokenizer_loads_through_the_auto_classes(
    tokenizer: FSQImageTokenizer, tmp_path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, FSQImageTokenizer)
    assert AutoConfig.from_pretrained(tmp_path).levels == [8, 6, 5]
    pixels = random_pixels(2, 3, 32, 32)
    assert torch.equal(loaded.encode(pixels), tokenizer.encode(pixels))
    assert torch.equal(loaded.decode(loaded.encode(pixels)), tokenizer(pixels)[0].clamp(-1, 1))
