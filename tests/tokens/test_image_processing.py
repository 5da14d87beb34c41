"""The image processor: any picture in, a square tensor in [-1, 1] out, and pictures back."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from unidiff.tokens.image import FSQImageTokenizerConfig
from unidiff.tokens.image_processing import UniDiffImageProcessor


@pytest.fixture
def processor() -> UniDiffImageProcessor:
    return UniDiffImageProcessor()


def pixel_values(processor: UniDiffImageProcessor, images: object, **kwargs: object):
    return processor(images, return_tensors="pt", **kwargs)["pixel_values"]


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F"])
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (32, 32), (40, 17), (300, 200)])
def test_pictures_of_any_mode_and_size_become_32_by_32(
    processor: UniDiffImageProcessor, mode: str, size: tuple[int, int]
) -> None:
    picture = Image.fromarray(random_bytes(size[1], size[0], 3)).convert("L").convert(mode)
    values = pixel_values(processor, picture)
    assert values.shape == (1, 3, 32, 32)
    assert values.dtype == torch.float32
    assert values.min() >= -1
    assert values.max() <= 1


def test_a_28_by_28_grey_image_keeps_its_pixels_in_a_black_border(
    processor: UniDiffImageProcessor,
) -> None:
    grey = random_bytes(28, 28)
    values = pixel_values(processor, Image.fromarray(grey))[0]
    expected = np.pad(grey, 2).astype(np.float32) / 127.5 - 1
    for channel in values.numpy():
        np.testing.assert_allclose(channel, expected, atol=1e-6)


def test_an_odd_border_is_one_pixel_wider_below_and_right(
    processor: UniDiffImageProcessor,
) -> None:
    values = pixel_values(processor, np.full((29, 31, 3), 255, np.uint8))[0, 0]
    assert (values[1:30, 0:31] == 1).all()
    assert (values == 1).sum() == 29 * 31


def test_a_wide_picture_is_shrunk_without_distortion(processor: UniDiffImageProcessor) -> None:
    values = pixel_values(processor, np.full((50, 100, 3), 255, np.uint8))[0, 0]
    assert torch.allclose(values[8:24], torch.ones(16, 32))
    assert torch.allclose(values[:8], -torch.ones(8, 32))
    assert torch.allclose(values[24:], -torch.ones(8, 32))


def test_pad_to_size_false_enlarges_a_small_picture(processor: UniDiffImageProcessor) -> None:
    small = np.full((4, 4, 3), 255, np.uint8)
    assert (pixel_values(processor, small) == 1).sum() == 3 * 16
    enlarged = pixel_values(processor, small, pad_to_size=False)
    assert torch.allclose(enlarged, torch.ones(1, 3, 32, 32))


def test_the_border_and_transparent_pixels_take_the_pad_value(
    processor: UniDiffImageProcessor,
) -> None:
    clear = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    values = pixel_values(processor, clear, pad_value=255)
    assert torch.allclose(values, torch.ones(1, 3, 32, 32))


def test_a_palette_picture_with_transparency_is_not_shown_opaque(
    processor: UniDiffImageProcessor,
) -> None:
    picture = Image.new("P", (32, 32), 0)
    picture.putpalette([255, 0, 0])
    picture.info["transparency"] = 0
    assert torch.allclose(pixel_values(processor, picture), -torch.ones(1, 3, 32, 32))


def test_16_bit_grey_keeps_its_high_byte(processor: UniDiffImageProcessor) -> None:
    picture = Image.fromarray(np.full((32, 32), 0x8034, np.uint16))
    expected = torch.full((1, 3, 32, 32), 0x80 / 127.5 - 1)
    assert torch.allclose(pixel_values(processor, picture), expected, atol=1e-6)


def test_all_layouts_of_one_picture_give_the_same_values(processor: UniDiffImageProcessor) -> None:
    last = random_bytes(20, 24, 3)
    first = np.moveaxis(last, -1, 0)
    expected = pixel_values(processor, Image.fromarray(last))
    for same in (last, first, torch.from_numpy(first.copy()), last / 255, last.astype(np.int64)):
        assert torch.allclose(pixel_values(processor, same), expected, atol=1e-6)


def test_grey_arrays_with_and_without_a_channel_axis_agree(
    processor: UniDiffImageProcessor,
) -> None:
    grey = random_bytes(28, 28)
    expected = pixel_values(processor, grey)
    assert torch.equal(pixel_values(processor, grey[..., None]), expected)
    assert torch.equal(pixel_values(processor, grey[None]), expected)
    both = pixel_values(processor, [grey, torch.from_numpy(grey)])
    assert torch.equal(both, torch.cat([expected, expected]))


def test_a_batch_may_mix_sizes_and_equals_its_images_alone(
    processor: UniDiffImageProcessor,
) -> None:
    images = [Image.fromarray(random_bytes(*size, 3)) for size in [(28, 28), (64, 20), (32, 32)]]
    together = pixel_values(processor, images)
    assert torch.equal(together, torch.cat([pixel_values(processor, image) for image in images]))


def test_an_array_of_images_is_a_batch(processor: UniDiffImageProcessor) -> None:
    images = random_bytes(4, 32, 32, 3)
    values = pixel_values(processor, images)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.allclose(values, expected, atol=1e-6)


def test_postprocess_inverts_the_processor_exactly(processor: UniDiffImageProcessor) -> None:
    images = random_bytes(3, 32, 32, 3)
    pictures = processor.postprocess(pixel_values(processor, images))
    assert all(picture.mode == "RGB" for picture in pictures)
    assert np.array_equal(np.stack([np.array(picture) for picture in pictures]), images)


def test_postprocess_clamps_and_accepts_a_single_image(processor: UniDiffImageProcessor) -> None:
    pixels = torch.full((3, 8, 12), 7.0)
    pixels[0] = -7.0
    (picture,) = processor.postprocess(pixels)
    assert picture.size == (12, 8)
    assert picture.getpixel((0, 0)) == (0, 255, 255)


def test_postprocess_refuses_wrong_shapes_and_nan(processor: UniDiffImageProcessor) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        processor.postprocess(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="finite"):
        processor.postprocess(torch.full((1, 3, 8, 8), float("nan")))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8, 2), np.uint8), "an image array must be"),
        (np.full((8, 8), 256), "0..255"),
        (np.full((8, 8), -0.5), "0..255"),
        (np.full((8, 8), np.nan), "0..255"),
    ],
)
def test_arrays_that_cannot_be_images_are_refused(
    processor: UniDiffImageProcessor, array: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        processor.process_image(array)


def test_a_string_is_not_an_image(processor: UniDiffImageProcessor) -> None:
    with pytest.raises(TypeError, match="PIL image"):
        processor.process_image("cat")


def test_without_resizing_a_large_picture_is_refused(processor: UniDiffImageProcessor) -> None:
    with pytest.raises(ValueError, match="do_resize"):
        processor(random_bytes(40, 40, 3), do_resize=False, return_tensors="pt")


def test_an_impossible_pad_value_is_refused(processor: UniDiffImageProcessor) -> None:
    with pytest.raises(ValueError, match="pad_value"):
        processor(random_bytes(8, 8, 3), pad_value=300, return_tensors="pt")


def test_options_survive_saving_and_the_auto_class(tmp_path) -> None:
    original = UniDiffImageProcessor(
        size={"height": 48, "width": 64}, pad_to_size=False, pad_value=9
    )
    original.save_pretrained(tmp_path)
    FSQImageTokenizerConfig().save_pretrained(tmp_path)
    for loaded in (
        UniDiffImageProcessor.from_pretrained(tmp_path),
        AutoImageProcessor.from_pretrained(tmp_path),
    ):
        assert isinstance(loaded, UniDiffImageProcessor)
        assert (loaded.pad_to_size, loaded.pad_value) == (False, 9)
        image = random_bytes(20, 30, 3)
        assert torch.equal(pixel_values(loaded, image), pixel_values(original, image))
        assert pixel_values(loaded, image).shape == (1, 3, 48, 64)


@pytest.mark.parametrize(("mode", "premultiplied"), [("LA", "La"), ("RGBA", "RGBa")])
def test_colours_multiplied_by_alpha_show_the_same_picture(
    processor: UniDiffImageProcessor, mode: str, premultiplied: str
) -> None:
    picture = Image.new("RGBA", (8, 8), (200, 200, 200, 255)).convert(mode)
    picture.putpixel((0, 0), 0 if mode == "LA" else (0, 0, 0, 0))
    expected = processor.process_image(picture, 77)
    assert expected[:, 0, 0].tolist() == [77, 77, 77]
    assert np.array_equal(processor.process_image(picture.convert(premultiplied), 77), expected)


@pytest.mark.parametrize("size", [(60, 90), (90, 61), (20, 31), (32, 48), (201, 33)])
def test_a_covering_picture_is_scaled_by_its_shorter_side_and_cut(size: tuple[int, int]) -> None:
    processor = UniDiffImageProcessor(
        size={"height": 32, "width": 32}, crop_to_size=True, resample=Image.Resampling.BICUBIC
    )
    image = random_bytes(*size, 3)
    short, long = sorted(size)
    scaled = int(32 * long / short)  # as torchvision's Resize rounds
    height, width = (32, scaled) if size[0] == short else (scaled, 32)
    top, left = round((height - 32) / 2), round((width - 32) / 2)  # and its CenterCrop
    expected = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    expected = np.asarray(expected.crop((left, top, left + 32, top + 32)))
    found = processor.postprocess(pixel_values(processor, image))[0]
    assert np.array_equal(np.asarray(found), expected)


def test_a_covering_picture_of_another_shape_loses_what_sticks_out() -> None:
    processor = UniDiffImageProcessor(size={"height": 4, "width": 8}, crop_to_size=True)
    columns = np.repeat(np.arange(16, dtype=np.uint8) * 16, 3).reshape(1, 16, 3).repeat(4, 0)
    found = np.asarray(processor.postprocess(pixel_values(processor, columns))[0])
    assert np.array_equal(found, columns[:, 4:12])
