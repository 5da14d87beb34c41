"""Drawings judged: known right and wrong ones, copies, and the garment judge itself."""

import numpy as np
import pytest

from unidiff.data.sources.garments import (
    CLASS_NAMES,
    DEFAULT_ROOT,
    caption_names_class,
    load_fashion_mnist,
    pad_to_canvas,
)
from unidiff.data.sources.scenes import render_scene, sample_scene, scene_generator
from unidiff.evaluation import drawings
from unidiff.evaluation.drawings import (
    copied_share,
    garment_requests,
    measure_garment_drawings,
    measure_scene_drawings,
)
from unidiff.evaluation.garment_judge import load_judge
from unidiff.evaluation.pictures import encode_pictures

SETTINGS = {"num_drawings": 20, "sampler": {}}
needs_photographs = pytest.mark.skipif(
    not DEFAULT_ROOT.exists(), reason="dataset-fashion-mnist missing"
)


def text_of(conversation):
    return " ".join(part["text"] for part in conversation[0]["content"] if part["type"] == "text")


def scene_painter(context, split, num_objects=2):
    first = drawings._SCENE_SEED_START
    return lambda asked: encode_pictures(
        context.processor,
        np.stack(
            [
                render_scene(sample_scene(scene_generator(split, first + i), split, num_objects))
                for i in range(len(asked))
            ]
        ),
    )


def test_the_requested_scenes_give_one(context_with):
    context = context_with()
    context.responder._answers["images"] = scene_painter(context, "unseen")
    (found,) = measure_scene_drawings(context, SETTINGS)
    assert found.name == "drawn_scene_accuracy"
    assert found.value == 1.0
    assert found.num_inputs == 20


def test_scenes_of_one_object_give_zero(context_with):
    context = context_with()
    context.responder._answers["images"] = scene_painter(context, "seen", num_objects=1)
    assert measure_scene_drawings(context, SETTINGS)[0].value == 0.0


def test_scene_requests_name_two_objects_of_an_unseen_combination(context_with):
    seen = []
    context = context_with()
    blank = np.zeros((1, 64), dtype=np.int64)

    def images(asked):
        seen.extend(asked)
        return np.repeat(blank, len(asked), axis=0)

    context.responder._answers["images"] = images
    measure_scene_drawings(context, SETTINGS)
    first = drawings._SCENE_SEED_START
    for index, conversation in enumerate(seen):
        scene = sample_scene(scene_generator("unseen", first + index), "unseen", 2)
        assert scene.is_unseen
        assert all(item.name in text_of(conversation) for item in scene.objects)


def test_garment_requests_are_balanced_over_classes_and_phrasings():
    requests, labels = garment_requests(100)
    assert np.bincount(labels).tolist() == [10] * 10
    assert len(set(requests)) == 50
    assert [caption_names_class(text) for text in requests] == labels.tolist()


def photographs_the_judge_knows():
    """Test photographs of each class that the judge classifies rightly."""
    images, labels = load_fashion_mnist("test")
    pictures = pad_to_canvas(images[:500])
    right = load_judge().classify(pictures) == labels[:500]
    return {label: pictures[right & (labels[:500] == label)] for label in range(10)}


@needs_photographs
@pytest.mark.parametrize(("shift", "accuracy"), [(0, 1.0), (1, 0.0)])
def test_photographs_of_the_right_class_give_one_and_of_another_zero(context_with, shift, accuracy):
    context = context_with()
    known = photographs_the_judge_knows()

    def images(asked):
        classes = [(caption_names_class(text_of(one)) + shift) % 10 for one in asked]
        chosen = [known[label][index // 10] for index, label in enumerate(classes)]
        return encode_pictures(context.processor, np.stack(chosen))

    context.responder._answers["images"] = images
    found = {one.name: one for one in measure_garment_drawings(context, SETTINGS)}
    assert found["drawn_garment_accuracy"].value == accuracy
    coverage = found["drawn_garment_coverage"]
    assert coverage.details["duplicates"] == 0.0
    assert coverage.details["copies_of_training_photographs"] >= 0.0
    assert coverage.conditions == {"duplicates_at_most_1_percent": True}


@needs_photographs
def test_one_drawing_repeated_is_all_duplicates_and_covers_little(context_with):
    context = context_with()
    picture = photographs_the_judge_knows()[1][:1]
    context.responder._answers["images"] = lambda asked: encode_pictures(
        context.processor, np.repeat(picture, len(asked), axis=0)
    )
    found = {one.name: one for one in measure_garment_drawings(context, SETTINGS)}
    assert found["drawn_garment_accuracy"].value == 0.1
    assert found["drawn_garment_coverage"].details["duplicates"] == 0.95
    assert not all(found["drawn_garment_coverage"].conditions.values())


@needs_photographs
def test_a_training_photograph_is_a_copy_and_noise_is_none():
    images, _ = load_fashion_mnist("train")
    pictures = pad_to_canvas(images[1000:1002])
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert copied_share(np.concatenate([pictures, noise]), threshold=1.0) == 0.5
    assert copied_share(np.ascontiguousarray(pictures[:, :, ::-1]), threshold=1.0) == 1.0


@needs_photographs
def test_the_judge_that_ships_names_nine_of_ten_test_photographs():
    images, labels = load_fashion_mnist("test")
    found = load_judge().classify(pad_to_canvas(images[:2000]))
    assert (found == labels[:2000]).mean() > 0.91
    assert set(found.tolist()) == set(range(len(CLASS_NAMES)))
