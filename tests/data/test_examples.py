"""A user's data: every form is read, what is missing is named, bad pictures are counted."""

import io
import json

import datasets
import numpy as np
import pytest
from PIL import Image

from unidiff.data.examples import load_examples

COLUMNS = ("image", "caption")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of one colour each, in a folder, and their colours."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate("abc"):
        pixels = np.full((6, 4, 3), 60 * number + 30, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(folder, key="image", prefix="pictures/"):
    return [{key: f"{prefix}{name}.png", "caption": f"picture {name}"} for name in "abc"]


def grey(example):
    assert example["image"].mode == "RGB"
    return int(np.asarray(example["image"])[0, 0, 0])


def check(examples):
    assert [grey(one) for one in examples] == [30, 90, 150]
    assert [one["caption"] for one in examples] == ["picture a", "picture b", "picture c"]


def test_jsonl_with_paths_beside_it(pictures, tmp_path):
    path = lines(tmp_path / "data.jsonl", rows_of(pictures))
    examples = load_examples(path, COLUMNS)
    check(examples)
    assert examples.bad == {}
    assert [grey(one) for one in examples[1:]] == [90, 150]


def test_csv_and_json(pictures, tmp_path):
    table = datasets.Dataset.from_list(rows_of(pictures))
    table.to_csv(tmp_path / "data.csv")
    (tmp_path / "data.json").write_text(json.dumps(rows_of(pictures)))
    check(load_examples(tmp_path / "data.csv", COLUMNS))
    check(load_examples(tmp_path / "data.json", COLUMNS))


def test_parquet_with_the_bytes_inside(pictures, tmp_path):
    rows = [
        {"image": {"bytes": (pictures / f"{n}.png").read_bytes(), "path": None}, "caption": "x"}
        for n in "abc"
    ]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "data.parquet")
    assert [grey(one) for one in load_examples(tmp_path / "data.parquet", COLUMNS)] == [30, 90, 150]


def test_a_folder_of_pictures_with_metadata(pictures):
    lines(pictures / "metadata.jsonl", rows_of(pictures, "file_name", ""))
    check(load_examples(pictures, COLUMNS))


def test_a_folder_with_splits(pictures):
    for split, name in (("train", "a"), ("test", "b")):
        (pictures / split).mkdir()
        (pictures / f"{name}.png").rename(pictures / split / "one.png")
        lines(pictures / split / "metadata.jsonl", [{"file_name": "one.png", "caption": split}])
    assert [one["caption"] for one in load_examples(pictures, COLUMNS)] == ["train"]
    assert [grey(one) for one in load_examples(pictures, COLUMNS, split="test")] == [90]


def test_sub_folders_name_classes(pictures):
    for name in "ab":
        (pictures / f"class_{name}").mkdir()
        (pictures / f"{name}.png").rename(pictures / f"class_{name}" / "one.png")
    (pictures / "c.png").unlink()
    examples = load_examples(pictures, ("image", "label"))
    assert [one["label"] for one in examples] == ["class_a", "class_b"]


def test_a_data_set_that_was_saved(pictures, tmp_path):
    datasets.Dataset.from_list(rows_of(pictures, prefix=f"{pictures}/")).save_to_disk(
        str(tmp_path / "saved")
    )
    check(load_examples(tmp_path / "saved", COLUMNS))


def test_missing_columns_are_named_with_those_that_are_there(tmp_path):
    path = lines(tmp_path / "data.jsonl", [{"picture": "a.png", "caption": "x"}])
    with pytest.raises(ValueError, match=r"lacks the columns \['image'\].*'picture'"):
        load_examples(path, COLUMNS)


@pytest.fixture
def damaged(pictures, tmp_path):
    (pictures / "b.png").write_bytes((pictures / "b.png").read_bytes()[:40])
    (pictures / "c.png").unlink()
    return lines(tmp_path / "data.jsonl", rows_of(pictures))


def test_pictures_that_do_not_decode_are_counted_and_named(damaged):
    with pytest.raises(ValueError, match=r"2 of 3 pictures .*example 1: .*example 2: .*no file"):
        load_examples(damaged, COLUMNS)


def test_they_are_skipped_on_request_and_still_counted(damaged):
    examples = load_examples(damaged, COLUMNS, on_bad="skip")
    assert [grey(one) for one in examples] == [30]
    assert sorted(examples.bad) == [1, 2]


def test_nothing_left_is_an_error(pictures, tmp_path):
    for name in "abc":
        (pictures / f"{name}.png").unlink()
    path = lines(tmp_path / "data.jsonl", rows_of(pictures))
    with pytest.raises(ValueError, match="none of the 3 pictures"):
        load_examples(path, COLUMNS, on_bad="skip")


def test_limit_takes_the_first(pictures, tmp_path):
    path = lines(tmp_path / "data.jsonl", rows_of(pictures))
    assert len(load_examples(path, COLUMNS, limit=2)) == 2


def test_text_needs_no_pictures(tmp_path):
    path = lines(tmp_path / "data.jsonl", [{"prefix": "a", "suffix": "c", "middle": "b"}])
    assert load_examples(path, ("prefix", "suffix", "middle"))[0]["middle"] == "b"


@pytest.mark.parametrize("source", ["nowhere.jsonl", "./nowhere", "nowhere.txt"])
def test_what_is_not_there_is_named(source):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_examples(source, COLUMNS)


@pytest.mark.parametrize("content", ["", '{"a": 1}\n{"a": '], ids=["empty", "cut short"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "some.jsonl").write_text(content)
    with pytest.raises(ValueError, match=r"some.jsonl holds no jsonl rows that can be read"):
        load_examples(tmp_path / "some.jsonl", ["a"])


def test_an_empty_folder_and_a_wrong_choice_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no pictures"):
        load_examples(tmp_path, COLUMNS)
    with pytest.raises(ValueError, match="on_bad"):
        load_examples(tmp_path, COLUMNS, on_bad="ignore")


def test_animated_and_palette_pictures_become_rgb(tmp_path):
    buffer = io.BytesIO()
    Image.new("P", (3, 3), 7).save(buffer, "GIF")
    (tmp_path / "one.gif").write_bytes(buffer.getvalue())
    assert load_examples(tmp_path, ("image",))[0]["image"].mode == "RGB"
