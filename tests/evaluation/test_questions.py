"""Accuracy on unseen combinations, and its text-only baselines."""

from types import SimpleNamespace

import pytest

from unidiff.evaluation.questions import (
    is_answer,
    majority_accuracy,
    measure_questions,
    unseen_questions,
)

SETTINGS = {"per_kind": 4, "sampler": {}}


def answering_when_shown_the_truth(context_with):
    """A responder that knows the answers, but only if the scene's own picture is shown."""
    asked, codes = unseen_questions(context_with(), SETTINGS["per_kind"])

    def texts(conversations):
        answers = []
        for conversation, (_, question), own in zip(conversations, asked, codes, strict=True):
            shown = conversation[0]["content"][0]["codes"]
            answers.append(question.answer if (shown == own).all() else "nothing")
        return answers

    return texts


def test_a_model_that_sees_scores_one_and_stands_above_text_only(context_with):
    context = context_with()
    context.responder._answers["texts"] = answering_when_shown_the_truth(lambda: context)
    (found,) = measure_questions(context, SETTINGS)
    assert found.value == 1.0
    assert found.num_inputs == 16
    assert found.details["text_only_baseline"] == 0.0
    assert found.conditions == {"30_points_above_text_only": True}
    assert set(found.details["by_kind"]) == {"count", "colour", "relation", "existence"}


def test_a_model_that_does_not_look_fails_the_condition(context_with):
    asked, _ = unseen_questions(context_with(), SETTINGS["per_kind"])
    answers = [question.answer for _, question in asked]
    (found,) = measure_questions(context_with(texts=lambda _: answers), SETTINGS)
    assert found.value == found.details["text_only_baseline"] == 1.0
    assert found.conditions == {"30_points_above_text_only": False}


def test_wrong_answers_give_zero(context_with):
    context = context_with(texts=lambda asked: ["banana"] * len(asked))
    assert measure_questions(context, SETTINGS)[0].value == 0.0


def test_every_scene_asked_about_is_unseen_and_the_limit_is_split_over_the_kinds(context_with):
    context = context_with(limit=8, texts=lambda asked: ["yes"] * len(asked))
    (found,) = measure_questions(context, {"per_kind": 500, "sampler": {}})
    assert found.num_inputs == 8
    asked, _ = unseen_questions(context, 2)
    assert all(scene.is_unseen for scene, _ in asked)


def test_majority_accuracy_counts_the_commonest_answer_of_each_kind():
    pairs = [("count", "two"), ("count", "two"), ("count", "one"), ("colour", "red")]
    questions = [SimpleNamespace(kind=kind, answer=answer) for kind, answer in pairs]
    assert majority_accuracy(questions) == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("text", "is_right"), [("red", True), (" Red. ", True), ("dark red", False), ("", False)]
)
def test_an_answer_is_one_word(text, is_right):
    assert is_answer(text, "red") is is_right
