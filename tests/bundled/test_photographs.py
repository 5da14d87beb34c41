"""The example photographs that ship with the package."""

import numpy as np
import pytest
from PIL import Image

from unidiff import bundled
from unidiff.bundled import PHOTOGRAPHS, bundled_photograph
from unidiff.data.sources.garments import CLASS_NAMES, load_fashion_mnist


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_is_one_of_the_test_split_under_its_true_name(name):
    with Image.open(bundled_photograph(name)) as picture:
        assert (picture.mode, picture.size) == ("L", (28, 28))
        pixels = np.asarray(picture)
    images, labels = load_fashion_mnist("test")
    (found,) = np.flatnonzero((images == pixels).all(axis=(1, 2)))
    assert CLASS_NAMES[labels[found]] == name


def test_every_photograph_of_the_folder_has_a_name_and_a_licence():
    folder = bundled_photograph("bag").parent
    files = {path.name for path in folder.iterdir()}
    assert files == {*(f"{name}.png" for name in PHOTOGRAPHS), "LICENSE"}
    licence = (folder / "LICENSE").read_text()
    assert "Zalando SE" in licence
    assert "MIT" in licence


def test_another_name_is_an_error_that_lists_the_names():
    with pytest.raises(ValueError, match=r"bag.*sneaker.*got 'hat'"):
        bundled_photograph("hat")


def test_a_missing_file_is_an_error_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "files", lambda name: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"sneaker\.png is not there: install"):
        bundled_photograph("sneaker")
