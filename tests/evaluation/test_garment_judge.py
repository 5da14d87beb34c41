"""The judge of garments: it learns, survives its file, and refuses what is no picture."""

import numpy as np
import pytest
import torch

from unidiff.evaluation.garment_judge import (
    NUM_FEATURES,
    JudgeRecipe,
    as_grey,
    augment,
    load_judge,
    save_judge,
    train_judge,
)

RECIPE = JudgeRecipe(epochs=8, batch_size=20)


@pytest.fixture(scope="module")
def stripes():
    """Two kinds of picture: a light upper half, a light lower half."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    pictures = rng.integers(0, 40, (200, 32, 32, 3), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[:16] += np.uint8(100 * (label == 0))
        picture[16:] += np.uint8(100 * (label == 1))
    return pictures, labels


@pytest.fixture(scope="module")
def judge(stripes):
    return train_judge(*stripes, RECIPE)


def test_the_judge_learns_a_simple_distinction(judge, stripes):
    pictures, labels = stripes
    assert (judge.classify(pictures) == labels).mean() > 0.97


def test_training_is_reproducible_and_leaves_the_global_generator_alone(judge, stripes):
    torch.manual_seed(5)
    again = train_judge(*stripes, RECIPE)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert np.array_equal(again.features(stripes[0]), judge.features(stripes[0]))


def test_a_saved_judge_judges_the_same(judge, stripes, tmp_path):
    save_judge(judge, tmp_path / "new" / "judge.safetensors")
    loaded = load_judge(tmp_path / "new" / "judge.safetensors")
    assert np.array_equal(loaded.classify(stripes[0]), judge.classify(stripes[0]))
    np.testing.assert_allclose(loaded.features(stripes[0]), judge.features(stripes[0]), atol=0.05)


def test_features_have_one_row_for_each_picture(judge, stripes):
    assert judge.features(stripes[0][:7]).shape == (7, NUM_FEATURES)


def test_a_missing_file_says_how_to_rebuild_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="build_garment_judge"):
        load_judge(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("shape", [(2, 28, 28, 3), (2, 32, 32), (32, 32, 3)])
def test_pictures_of_another_shape_are_refused(judge, shape):
    with pytest.raises(ValueError, match="pictures"):
        judge.classify(np.zeros(shape, np.uint8))


def test_augmentation_keeps_brightness_and_depends_on_the_photograph_alone():
    pictures = np.zeros((6, 32, 32, 3), np.uint8)
    pictures[:, 8:24, 10:20] = 200
    grey, numbers = as_grey(pictures), torch.arange(6)
    together = augment(grey, numbers, 3, RECIPE)
    alone = torch.cat([augment(grey[i : i + 1], numbers[i : i + 1], 3, RECIPE) for i in range(6)])
    assert torch.equal(together, alone)
    assert torch.allclose(together.mean((1, 2, 3)), grey.mean((1, 2, 3)), atol=1e-4)
    assert not torch.equal(together, augment(grey, numbers, 4, RECIPE))
