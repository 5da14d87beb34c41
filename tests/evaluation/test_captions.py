"""Caption accuracy with captions that are known to be right or wrong."""

import pytest

from unidiff.data.sources.garments import CLASS_NAMES, DEFAULT_ROOT, load_fashion_mnist
from unidiff.evaluation.captions import measure_captions

pytestmark = pytest.mark.skipif(not DEFAULT_ROOT.exists(), reason="dataset-fashion-mnist missing")
SETTINGS = {"num_photographs": 10_000, "request": "describe the picture.", "sampler": {}}


def captions(number, shift):
    _, labels = load_fashion_mnist("test")
    return lambda asked: [
        f"this is a {CLASS_NAMES[(label + shift) % 10]}." for label in labels[: len(asked)]
    ]


@pytest.mark.parametrize(("shift", "accuracy"), [(0, 1.0), (1, 0.0)])
def test_right_captions_give_one_and_wrong_ones_zero(context_with, shift, accuracy):
    (found,) = measure_captions(context_with(limit=30, texts=captions(30, shift)), SETTINGS)
    assert found.name == "caption_accuracy"
    assert found.value == accuracy
    assert found.num_inputs == 30
    assert found.interval[0] <= accuracy <= found.interval[1]


def test_a_caption_that_names_several_classes_is_wrong(context_with):
    context = context_with(limit=5, texts=lambda asked: [" ".join(CLASS_NAMES)] * len(asked))
    (found,) = measure_captions(context, SETTINGS)
    assert found.value == 0.0
    assert found.details["named_none_or_several"] == 1.0


def test_each_photograph_is_shown_before_the_request(context_with):
    seen = []
    context = context_with(limit=3, texts=lambda asked: seen.extend(asked) or ["x"] * len(asked))
    measure_captions(context, SETTINGS)
    kinds = [part["type"] for part in seen[0][0]["content"]]
    assert kinds == ["image", "text"]
    codes = {tuple(one[0]["content"][0]["codes"]) for one in seen}
    assert len(codes) == 3
