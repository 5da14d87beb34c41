"""Training of the image tokenizer: it learns, resumes exactly, measures and refuses nonsense."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import unidiff.training.image_tokenizer as training
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.training.image_tokenizer import (
    TrainImageTokenizerOptions,
    code_use,
    images_to_pixels,
    rare_colour_weights,
    reconstruction_psnr,
    small_detail_weights,
    train_image_tokenizer,
)

TINY = FSQImageTokenizerConfig(
    levels=[5, 5, 5], hidden_sizes=[8, 16], num_encoder_blocks=1, num_decoder_blocks=1
)
SHORT = TrainImageTokenizerOptions(
    steps=6, batch_size=4, save_every=2, bfloat16=False, show_progress=False
)


def coloured_squares(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    images = np.full((count, 32, 32, 3), 128, np.uint8)
    for image in images:
        row, column = random.integers(0, 23, 2)
        image[row : row + 9, column : column + 9] = random.integers(0, 256, 3)
    return images


class FixedTokenizer(FSQImageTokenizer):
    """Says code 3 for a dark image and code 7 for a bright one; paints everything grey."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        is_bright = pixels.mean((1, 2, 3)) > 0
        return torch.where(is_bright, 7, 3).view(-1, 1, 1).expand(-1, 8, 8)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(codes), 3, 32, 32)


def test_the_tiny_tokenizer_learns_coloured_squares(tmp_path: Path) -> None:
    images = coloured_squares(64)
    options = TrainImageTokenizerOptions(
        steps=400, batch_size=16, lr=5e-3, bfloat16=False, show_progress=False
    )
    model = train_image_tokenizer(images, TINY, options, tmp_path)
    error = np.square((images - 128.0) / 255).mean((1, 2, 3))  # of painting the background only
    assert reconstruction_psnr(model, images).mean() > -10 * np.log10(error).mean() + 3
    assert code_use(model, images) > 0.05


def test_the_result_on_disk_is_the_result_in_memory(tmp_path: Path) -> None:
    images = coloured_squares(8)
    model = train_image_tokenizer(images, TINY, SHORT, tmp_path)
    loaded = FSQImageTokenizer.from_pretrained(tmp_path)
    assert not model.training
    assert np.array_equal(reconstruction_psnr(loaded, images), reconstruction_psnr(model, images))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_an_interrupted_run_continues_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = coloured_squares(8)
    whole = train_image_tokenizer(images, TINY, SHORT, tmp_path / "whole")
    draw = training._draw_batch
    drawn: list[int] = []

    def interrupted(images, weights, cumulative, options, step):
        drawn.append(step)
        if drawn == [0, 1, 2, 3, 4]:
            raise KeyboardInterrupt
        return draw(images, weights, cumulative, options, step)

    monkeypatch.setattr(training, "_draw_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_image_tokenizer(images, TINY, SHORT, tmp_path / "parts")
    resumed = train_image_tokenizer(images, TINY, SHORT, tmp_path / "parts")
    assert drawn == [0, 1, 2, 3, 4, 4, 5]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_another_runs_state_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = coloured_squares(8)
    monkeypatch.setattr(training._TrainingRun, "finish", lambda self: None)
    train_image_tokenizer(images, TINY, SHORT, tmp_path)
    with pytest.raises(ValueError, match="another run"):
        train_image_tokenizer(images, TINY, replace(SHORT, lr=1e-3), tmp_path)
    wider = FSQImageTokenizerConfig(levels=[5, 5, 5], hidden_sizes=[8, 24])
    with pytest.raises(ValueError, match="another run"):
        train_image_tokenizer(images, wider, SHORT, tmp_path)
    train_image_tokenizer(images, TINY, replace(SHORT, save_every=3), tmp_path)


def test_the_seed_alone_decides_the_weights(tmp_path: Path) -> None:
    images = coloured_squares(8)
    weights = []
    for place, seed in enumerate((0, 0, 1)):
        torch.manual_seed(place)
        options = replace(SHORT, seed=seed)
        model = train_image_tokenizer(images, TINY, options, tmp_path / str(place))
        weights.append(torch.cat([value.flatten() for value in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train_image_tokenizer(coloured_squares(4), TINY, SHORT, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_drawn_by_their_weights() -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    images[1], images[2] = 100, 200
    cumulative = training._cumulative_weights(3, np.array([3.0, 0.0, 1.0]))
    options = TrainImageTokenizerOptions(batch_size=4000)
    pixels, _ = training._draw_batch(images, None, cumulative, options, step=0)
    shares = [(pixels[:, 0, 0, 0] == value / 127.5 - 1).float().mean() for value in (0, 100, 200)]
    assert abs(shares[0] - 0.75) < 0.03
    assert shares[1] == 0


def test_half_of_the_images_are_mirrored_unless_switched_off() -> None:
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[:, :, 0] = 255
    cumulative = training._cumulative_weights(1, None)
    options = TrainImageTokenizerOptions(batch_size=2000)
    pixels, _ = training._draw_batch(image, None, cumulative, options, step=0)
    assert abs((pixels[:, 0, 0, 3] == 1).float().mean() - 0.5) < 0.05
    upright, _ = training._draw_batch(image, None, cumulative, replace(options, flip=False), step=0)
    assert (upright[:, 0, 0, 0] == 1).all()


def test_weights_of_pixels_are_mirrored_with_them() -> None:
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[:, :, 0] = 255
    weights = np.array([[[5.0, 1.0, 1.0, 1.0]] * 4], dtype=np.float16)
    options = TrainImageTokenizerOptions(batch_size=64)
    cumulative = training._cumulative_weights(1, None)
    pixels, drawn = training._draw_batch(image, weights, cumulative, options, step=0)
    assert drawn.shape == (64, 1, 4, 4)
    assert torch.equal(drawn[:, 0] == 5, pixels[:, 0] == 1)
    assert len(drawn[:, 0, 0, 0].unique()) == 2  # some were mirrored, some were not


def test_rare_colours_weigh_more() -> None:
    images = np.full((2, 10, 10, 3), 100, np.uint8)
    images[0, :2, :2] = (0, 255, 0)  # 2 % of the pixels
    weights = rare_colour_weights(images)
    assert weights.shape == (2, 10, 10)
    assert weights.astype(np.float64).mean() == pytest.approx(1, abs=1e-3)
    rare, common = float(weights[0, 0, 0]), float(weights[1, 5, 5])
    assert rare / common == pytest.approx((0.98 / 0.02) ** 0.5, rel=1e-3)
    held = rare_colour_weights(images, most=3.0)
    assert float(held[0, 0, 0]) / float(held[1, 5, 5]) == pytest.approx(3.0, rel=1e-3)
    with pytest.raises(ValueError, match="most >= 1"):
        rare_colour_weights(images, most=0.5)


def test_what_differs_from_its_surroundings_counts_more() -> None:
    images = np.full((2, 12, 12, 3), 100, np.uint8)
    images[0, 5, 5] = 151  # a fifth of the range brighter; a window of 3 x 3 holds it once
    weights = small_detail_weights(images, strength=10.0, reach=1).astype(np.float64)
    assert weights.mean() == pytest.approx(1, abs=1e-3)
    base = weights[1, 5, 5]
    assert weights[0, 5, 5] / base == pytest.approx(1 + 10 * 0.2 * 8 / 9, rel=1e-2)
    assert weights[0, 4, 4] / base == pytest.approx(1 + 10 * 0.2 / 9, rel=1e-2)
    assert weights[0, 8, 8] == base
    assert np.ptp(small_detail_weights(images, strength=0.0)) == 0
    for wrong in ({"strength": -1.0}, {"strength": np.nan}, {"reach": 0}, {"reach": 12}):
        with pytest.raises(ValueError, match="and reach in"):
            small_detail_weights(images, **wrong)


def test_training_begins_with_the_weights_given(tmp_path: Path) -> None:
    images = coloured_squares(8)
    first = train_image_tokenizer(images, TINY, SHORT, tmp_path / "first")
    barely = replace(SHORT, steps=1, lr=1e-9)
    second = train_image_tokenizer(images, TINY, barely, tmp_path / "second", start=first)
    for name, weight in first.state_dict().items():
        assert torch.allclose(weight, second.state_dict()[name], atol=1e-6), name
    other = FSQImageTokenizer(FSQImageTokenizerConfig(levels=[5, 25], hidden_sizes=[8, 16]))
    with pytest.raises(ValueError, match="tokenizer of the sizes"):
        train_image_tokenizer(images, TINY, barely, tmp_path / "third", start=other)


def test_a_pixel_without_weight_may_come_out_as_it_likes() -> None:
    error = torch.zeros(1, 3, 2, 2)
    error[..., 0] = 1.0
    weights = torch.ones(1, 1, 2, 2)
    weights[..., 0] = 0.0
    options = TrainImageTokenizerOptions()
    nothing = training._reconstruction_loss(torch.zeros_like(error), None, options)
    assert training._reconstruction_loss(error, weights, options) == nothing
    assert training._reconstruction_loss(error, None, options) > nothing + 1


def test_impossible_pixel_weights_are_refused(tmp_path: Path) -> None:
    images = coloured_squares(4)
    for wrong in (np.ones((4, 32, 31)), np.full((4, 32, 32), -1.0), np.full((4, 32, 32), np.nan)):
        with pytest.raises(ValueError, match="pixel_weights must be"):
            train_image_tokenizer(images, TINY, SHORT, tmp_path, pixel_weights=wrong)


def test_psnr_of_a_known_error_is_the_textbook_value() -> None:
    model = FixedTokenizer(TINY)
    images = np.empty((2, 32, 32, 3), np.uint8)
    images[0], images[1] = 0, 204
    psnr = reconstruction_psnr(model, images)
    errors = np.array([0.5, 204 / 255 - 0.5])
    np.testing.assert_allclose(psnr, -20 * np.log10(errors), atol=1e-4)


def test_code_use_counts_different_codes() -> None:
    images = np.zeros((3, 32, 32, 3), np.uint8)
    model = FixedTokenizer(TINY)
    assert code_use(model, images) == pytest.approx(1 / 125)
    images[1] = 255
    assert code_use(model, images) == pytest.approx(2 / 125)


def test_bytes_become_pixels_in_the_range_of_the_tokenizer() -> None:
    image = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    assert images_to_pixels(image).flatten().tolist() == pytest.approx([-1, -0.6, 1])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\) uint8"):
        train_image_tokenizer(images, TINY, SHORT, tmp_path)
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\) uint8"):
        reconstruction_psnr(FSQImageTokenizer(TINY), images)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_impossible_sampling_weights_are_refused(weights: list[float], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sampling_weights"):
        train_image_tokenizer(coloured_squares(2), TINY, SHORT, tmp_path, np.array(weights))


@pytest.mark.parametrize("field", ["steps", "batch_size", "lr", "error_floor", "save_every"])
def test_options_that_are_not_positive_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        TrainImageTokenizerOptions(**{field: 0})
