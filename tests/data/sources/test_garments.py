"""Garments: the idx reader, the judge, and sentences whose answers are true."""

import gzip
import itertools

import numpy as np
import pytest

from unidiff.data.sources import garments

LABELS = range(len(garments.CLASS_NAMES))


def write_idx(path, array, num_axes=None):
    header = bytes((0, 0, 8, array.ndim if num_axes is None else num_axes))
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + sizes + array.astype(np.uint8).tobytes()))


def write_split(root, images, labels, prefix="t10k"):
    write_idx(root / f"{prefix}-images-idx3-ubyte.gz", images)
    write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", labels)


def test_images_and_labels_come_back_as_written(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    write_split(tmp_path, images, np.array([9, 0, 3, 1, 1]))
    loaded, labels = garments.load_fashion_mnist("test", tmp_path)
    assert loaded.dtype == np.uint8
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(loaded, images)
    np.testing.assert_array_equal(labels, [9, 0, 3, 1, 1])


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"apt-get install dataset-fashion-mnist.*make data"
    ):
        garments.load_fashion_mnist("train", tmp_path)


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train"):
        garments.load_fashion_mnist("validation", tmp_path)


def test_a_damaged_file_is_refused(tmp_path):
    write_split(tmp_path, np.zeros((2, 28, 28)), np.zeros(2))
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(ValueError, match="idx file"):
        garments.load_fashion_mnist("test", tmp_path)


def test_fewer_labels_than_images_are_refused(tmp_path):
    write_split(tmp_path, np.zeros((2, 28, 28)), np.zeros(3))
    with pytest.raises(ValueError, match="as many"):
        garments.load_fashion_mnist("test", tmp_path)


@pytest.mark.skipif(not garments.DEFAULT_ROOT.exists(), reason="dataset-fashion-mnist missing")
def test_the_real_test_split_is_balanced():
    images, labels = garments.load_fashion_mnist("test")
    assert images.shape == (10000, 28, 28)
    assert np.bincount(labels).tolist() == [1000] * 10


def test_padding_keeps_the_photo_in_the_middle_of_a_black_canvas():
    images = np.random.default_rng(0).integers(1, 256, (2, 28, 28)).astype(np.uint8)
    canvas = garments.pad_to_canvas(images)
    assert canvas.shape == (2, 32, 32, 3)
    assert canvas.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(canvas[:, 2:30, 2:30, channel], images)
    assert canvas.sum(dtype=np.int64) == 3 * images.sum(dtype=np.int64)


def test_padding_refuses_other_shapes():
    with pytest.raises(ValueError, match="uint8"):
        garments.pad_to_canvas(np.zeros((2, 32, 32), np.uint8))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a photo of a sneaker.", "sneaker"),
        ("This is a T-shirt!", "t-shirt"),
        ("a shirt", "shirt"),
        ("bag, bag", "bag"),
        ("a shirt and a coat", None),
        ("a t-shirt or a shirt", None),
        ("two boots", None),
        ("raincoat", None),
        ("", None),
    ],
)
def test_the_judge_finds_whole_words_only(text, name):
    label = garments.caption_names_class(text)
    assert (None if label is None else garments.CLASS_NAMES[label]) == name


@pytest.mark.parametrize("label", LABELS)
def test_every_caption_and_request_names_its_class(label):
    rng = np.random.default_rng(label)
    captions = {garments.draw_caption(label, rng) for _ in range(100)}
    requests = {garments.draw_drawing_request(label, rng) for _ in range(100)}
    assert len(captions) == len(garments.CAPTIONS)
    assert len(requests) == len(garments.DRAWING_REQUESTS)
    assert {garments.caption_names_class(text) for text in captions | requests} == {label}


@pytest.mark.parametrize("label", LABELS)
def test_identity_answers_are_true_and_balanced(label):
    rng = np.random.default_rng(label)
    turns = [garments.draw_question(label, rng, "identity") for _ in range(1000)]
    for question, answer in turns:
        assert (garments.caption_names_class(question) == label) == (answer == "yes")
    num_yes = sum(answer == "yes" for _, answer in turns)
    assert abs(num_yes - 500) < 80  # five standard deviations


def test_footwear_and_category_answers_agree():
    rng = np.random.default_rng(0)
    worn_on_feet = set()
    for label in LABELS:
        category = garments.draw_question(label, rng, "category")[1]
        answer = garments.draw_question(label, rng, "footwear")[1]
        assert (answer == "yes") == (category == "footwear")
        if answer == "yes":
            worn_on_feet.add(garments.CLASS_NAMES[label])
    assert worn_on_feet == {"sandal", "sneaker", "boot"}


def test_unknown_question_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        garments.draw_question(0, np.random.default_rng(0), "price")


@pytest.mark.parametrize("num_turns", [1, 3, 16])
def test_conversations_ask_nothing_twice_and_repeat_the_last_answer(num_turns):
    num_repeats = 0
    for seed in range(50):
        turns = garments.garment_conversation(7, np.random.default_rng(seed), num_turns)
        assert len(turns) == num_turns
        assert len({user for user, _ in turns}) == num_turns
        assert garments.caption_names_class(turns[0][1]) == 7
        for (_, earlier), (user, answer) in itertools.pairwise(turns):
            if user in garments.REPEAT_REQUESTS:
                assert answer == earlier
                num_repeats += 1
    assert (num_repeats > 0) == (num_turns > 1)


def test_the_same_seed_gives_the_same_conversation():
    first = garments.garment_conversation(3, np.random.default_rng(5), 6)
    assert first == garments.garment_conversation(3, np.random.default_rng(5), 6)
    assert first != garments.garment_conversation(3, np.random.default_rng(6), 6)


def test_conversation_of_no_turns_is_refused():
    with pytest.raises(ValueError, match="num_turns"):
        garments.garment_conversation(3, np.random.default_rng(0), 0)


def test_listed_sentences_cover_what_is_drawn():
    listed = set(garments.iter_garment_sentences())
    rng = np.random.default_rng(0)
    for label in LABELS:
        turns = garments.garment_conversation(label, rng, 10)
        assert {text for turn in turns for text in turn} <= listed
        assert garments.draw_drawing_request(label, rng) in listed
