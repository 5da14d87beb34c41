"""Pictures cut into patches: how Dream-VL scales small ones, and which are too narrow."""

import numpy as np
import pytest
import torch
from PIL import Image

from unidiff.tokens.patches import Patches
from unidiff.tokens.soft_prompts import PatchedPictures


def picture(size: tuple[int, int]) -> Image.Image:
    """A picture of noise of (height, width) pixels."""
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size[::-1])


@pytest.mark.parametrize(
    ("size", "grid"),
    [  # (height, width) in pixels and in patches, by the published code
        ((20, 300), (2, 30)),
        ((300, 20), (30, 2)),
        ((12, 100), (2, 16)),
        ((1, 1), (4, 4)),
        ((20, 30), (4, 6)),
        ((13, 2600), (2, 400)),
        ((1, 900), (2, 1800)),
        ((28, 5600), (2, 400)),
    ],
)
def test_dream_vl_enlarges_small_pictures_as_published(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    one = picture(size)
    found = PatchedPictures(Patches(), 3136, 3211264, enlarges=True)(one)
    assert found.shape == (1, *grid)
    scaled = one.resize((14 * grid[1], 14 * grid[0]), Image.Resampling.BICUBIC)
    corner = torch.from_numpy(np.asarray(scaled)[:14, :14].copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(found.pixel_values[0].view(3, 2, 14, 14)[:, 0], corner)


@pytest.mark.parametrize(
    ("size", "enlarges", "most"),
    [((28, 5601), True, 200), ((27, 5401), False, 200), ((2, 8193), True, 4096)],
)
def test_pictures_that_published_code_cannot_scale_are_refused(
    size: tuple[int, int], enlarges: bool, most: int
) -> None:
    pictures = PatchedPictures(Patches(), 3136, 3211264, enlarges=enlarges)
    with pytest.raises(ValueError, match=f"too narrow .* at most {most} times the other"):
        pictures(picture(size))
