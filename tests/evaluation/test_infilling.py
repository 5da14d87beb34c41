"""Holes and continuations of held-out text: scores of known answers, what the model is shown."""

import numpy as np
import pytest

from unidiff.evaluation.context import EvaluationContext
from unidiff.evaluation.infilling import (
    continue_text,
    edit_similarity,
    fill_holes,
    held_out_stretches,
)
from unidiff.evaluation.responder import ModelResponder, Usage

HOLES = {"stretch_length": 24, "hole_lengths": [8, 12], "sampler": {}}
COMPLETION = {"prompt_length": 8, "sampler": {"max_new_tokens": 16}}


class Clairvoyant:
    """Knows what the library says; forgets the last `forgets` tokens of it."""

    def __init__(self, forgets=0):
        self.forgets = forgets
        self.usage = Usage()
        self.seen = []

    def fillings(self, stretches, options, seed):
        self.seen += stretches
        return [one.wanted[: len(one.wanted) - self.forgets] for one in stretches]

    continuations = fillings


@pytest.fixture(autouse=True)
def library(monkeypatch):
    text = "\n".join(f"def function_{n}(a, b):\n    return a + {n} * b\n" for n in range(60))
    documents = [("one", text), ("two", text[::-1])]
    monkeypatch.setattr("unidiff.evaluation.infilling.iter_documents", lambda _: documents)


@pytest.fixture
def context_of(processor):
    return lambda responder, seed=0: EvaluationContext(responder, None, processor, seed)


@pytest.mark.parametrize(
    ("said", "truth", "similarity"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([], [], 1.0),
        ([], [1, 2], 0.0),
        ([1, 2, 3, 4], [1, 3, 4], 0.75),  # one deletion
        ([1, 9, 3], [1, 2, 3], 2 / 3),  # one exchange
        ([2, 1], [1, 2], 0.0),
        ([7, 1, 2, 3], [1, 2, 3, 7], 0.5),
    ],
)
def test_edit_similarity_of_known_pairs(said, truth, similarity):
    assert edit_similarity(said, truth) == pytest.approx(similarity)
    assert edit_similarity(truth, said) == pytest.approx(similarity)


@pytest.mark.parametrize(
    ("measure", "settings"), [(fill_holes, HOLES), (continue_text, COMPLETION)]
)
def test_the_library_itself_scores_one_and_a_token_less_does_not(context_of, measure, settings):
    scores = measure(context_of(Clairvoyant()), settings, 10)
    assert scores["edit_similarity"].tolist() == [1.0] * 10
    assert scores["exact_match"].tolist() == [1.0] * 10
    scores = measure(context_of(Clairvoyant(forgets=1)), settings, 10)
    assert np.all((scores["edit_similarity"] < 1) & (scores["edit_similarity"] > 0.8))
    assert scores["exact_match"].tolist() == [0.0] * 10


def test_holes_are_of_the_lengths_asked_for_and_lie_inside(context_of):
    responder = Clairvoyant()
    fill_holes(context_of(responder), HOLES, 30)
    lengths = {one.stop - one.start for one in responder.seen}
    assert lengths == {8, 9, 10, 11, 12}
    assert all(0 <= one.start < one.stop <= 24 for one in responder.seen)
    assert len({one.start for one in responder.seen}) > 5


def test_stretches_differ_from_each_other_and_with_the_seed(context_of):
    found = held_out_stretches(context_of(Clairvoyant()), 24, 20)
    assert len({tuple(ids) for ids in found}) > 15
    again = held_out_stretches(context_of(Clairvoyant()), 24, 20)
    assert np.array_equal(found, again)
    other = held_out_stretches(context_of(Clairvoyant(), seed=1), 24, 20)
    assert not np.array_equal(found, other)


def test_more_stretches_than_there_are_is_an_error(context_of):
    with pytest.raises(ValueError, match="stretches of 24 tokens only"):
        held_out_stretches(context_of(Clairvoyant()), 24, 10**6)


def test_a_model_is_shown_both_sides_of_a_hole_and_no_token_of_it(context_of, model, processor):
    responder = ModelResponder(model, processor)
    seen = []
    generate = model.generate

    class Watching:
        def generate(self, **inputs):
            seen.append(inputs)
            return generate(**inputs)

    responder.model = Watching()
    settings = {**HOLES, "sampler": {"unmasking_strategy": "static", "batch_size": 2}}
    scores = fill_holes(context_of(responder), settings, 3)
    assert len(seen) == 2  # batches
    assert responder.usage.num_requests == 3
    assert responder.usage.num_tokens == 8 + 9 + 10
    assert len(scores["exact_match"]) == 3
    inputs = seen[0]
    wanted = ~inputs["pinned_mask"] & (inputs["canvas_modality_ids"] >= 0)
    assert wanted.sum(1).tolist() == [8, 9]
    assert (inputs["canvas"][wanted] == processor.layout.mask_token_id).all()


def test_a_model_continues_what_stands_before(context_of, model, processor):
    responder = ModelResponder(model, processor)
    settings = {**COMPLETION, "sampler": {"max_new_tokens": 16, "block_length": 8}}
    scores = continue_text(context_of(responder), settings, 3)
    assert len(scores["edit_similarity"]) == 3
    assert responder.usage.num_requests == 3
    assert responder.usage.num_tokens <= 3 * 16
