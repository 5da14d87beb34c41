"""Run: pytest -q tests/data/sources/test_scene_language.py."""

import re
from collections import Counter

import numpy as np
import pytest

from unidiff.data.sources.scene_facts import ANSWERS, QUESTION_KINDS
from unidiff.data.sources.scene_language import (
    available_answers,
    balanced_questions,
    caption,
    caption_matches,
    drawing_request,
    sample_question,
    scene_conversation,
)
from unidiff.data.sources.scenes import (
    OPPOSITE,
    Scene,
    SceneObject,
    is_unseen_combination,
    sample_scene,
    scene_generator,
    scene_relations,
)

NAME = r"(\w+ (?:circle|square|triangle))"
CLAIM = re.compile(rf"{NAME} (left of|right of|above|below) (?:a |the )?{NAME}")

# red circle | blue square in the upper row, green circle below the red circle
SCENE = Scene(
    (
        SceneObject("red", "circle", 6, 6, 9),
        SceneObject("blue", "square", 6, 26, 9),
        SceneObject("green", "circle", 26, 6, 9),
    ),
    background=40,
)


def draw(split: str, count: int, num_objects: int | None = None) -> list[Scene]:
    rng = scene_generator(split, 1)
    return [sample_scene(rng, split, num_objects) for _ in range(count)]


@pytest.mark.parametrize(
    ("question", "kind", "answer"),
    [
        ("how many shapes are there?", "count", "three"),
        ("how many circles are there?", "count", "two"),
        ("how many yellow shapes are there?", "count", "zero"),
        ("what colour is the square?", "colour", "blue"),
        ("what colour is the shape below the red circle?", "colour", "green"),
        ("what is right of the red circle?", "relation", "square"),
        ("is there a green circle?", "existence", "yes"),
        ("is there a green square?", "existence", "no"),
    ],
)
def test_known_questions_about_a_known_scene(question, kind, answer):
    rng = np.random.default_rng(0)
    asked = {(q.text, q.answer) for q in (sample_question(SCENE, rng, kind) for _ in range(3000))}
    assert {found for text, found in asked if text == question} == {answer}


def test_ambiguous_references_are_never_asked():
    rng = np.random.default_rng(0)
    texts = {sample_question(SCENE, rng).text for _ in range(3000)}
    assert not any("colour is the circle" in text for text in texts)
    # the blue square is diagonal to the green circle: nobody asks how they lie
    claims = {frozenset((a, b)) for text in texts for a, _, b in CLAIM.findall(text)}
    assert frozenset(("green circle", "blue square")) not in claims


def test_yes_and_no_follow_the_geometry():
    rng = np.random.default_rng(0)
    for scene in draw("seen", 300, num_objects=3):
        truths = set(scene_relations(scene))
        for answer in set(available_answers(scene, "relation")) & {"yes", "no"}:
            question = sample_question(scene, rng, "relation", answer=answer)
            (claim,) = CLAIM.findall(question.text.removeprefix("is the "))
            assert (claim in truths) == (question.answer == "yes")


def test_words_of_training_never_name_an_unseen_combination():
    rng = np.random.default_rng(0)
    num_claims = 0
    for scene in draw("train", 500):
        texts = [caption(scene, rng)] + [sample_question(scene, rng).text for _ in range(4)]
        for user, assistant in scene_conversation(scene, rng, 5):
            texts += [user, assistant]
        if len(scene.objects) < 3:
            texts.append(drawing_request(scene, rng))
        claims = [claim for text in texts for claim in CLAIM.findall(text.replace("is the ", ""))]
        num_claims += len(claims)
        assert not any(is_unseen_combination(*claim) for claim in claims)
    assert num_claims > 1000


@pytest.mark.parametrize(("split", "about_anchor"), [("seen", False), ("unseen", True)])
def test_balanced_questions_spread_evenly_over_the_answers(split, about_anchor):
    scenes = draw(split, 1500)
    rng = np.random.default_rng(0)
    questions = balanced_questions(scenes, rng, 60, about_anchor=about_anchor)
    for kind in QUESTION_KINDS:
        indices = [index for index, question in questions if question.kind == kind]
        count = Counter(question.answer for _, question in questions if question.kind == kind)
        assert sum(count.values()) == 60
        assert len(set(indices)) == 60
        possible = len(ANSWERS[kind]) - (about_anchor and kind == "count")  # zero is impossible
        assert len(count) == possible
        assert max(count.values()) - min(count.values()) <= 2


def test_questions_about_the_anchor_name_no_other_object():
    rng = np.random.default_rng(0)
    for scene in draw("unseen", 200, num_objects=4):
        for kind in ("relation", "colour"):
            if not available_answers(scene, kind, about_anchor=True):
                continue
            text = sample_question(scene, rng, kind, about_anchor=True).text
            assert not any(item.name in text for item in scene.objects[2:])


def test_captions_are_true_and_an_altered_caption_is_not():
    rng = np.random.default_rng(0)
    for scene in draw("seen", 300):
        text = caption(scene, rng)
        assert caption_matches(text, scene)
        for relation in OPPOSITE:
            wrong = text.replace(relation, OPPOSITE[relation])
            assert wrong == text or not caption_matches(wrong, scene)
        assert not caption_matches(text.replace(scene.objects[0].colour, "grey"), scene)


def test_drawing_requests_name_the_scene_in_several_phrasings():
    rng = np.random.default_rng(0)
    for scene in draw("seen", 50, num_objects=2):
        texts = {drawing_request(scene, rng) for _ in range(40)}
        assert len(texts) > 4
        assert all(caption_matches(text, scene) for text in texts)
    with pytest.raises(ValueError, match="1 or 2 objects"):
        drawing_request(SCENE, rng)


def test_conversations_have_the_asked_length_and_contain_every_sort_of_turn():
    rng = np.random.default_rng(0)
    users, assistants = [], []
    for scene in draw("seen", 300):
        turns = scene_conversation(scene, rng, 5)
        assert len(turns) == 5
        users += [user for user, _ in turns]
        assistants += [assistant for _, assistant in turns]
    for wanted in (
        "what do you see?",
        "and what colour is it?",
        "and how many of them are",
        "and what is",
        "answer in a sentence.",
    ):
        assert any(wanted in user for user in users)
    assert all(text == text.lower() for text in users + assistants)


def test_all_texts_use_a_small_set_of_words():
    rng = np.random.default_rng(0)
    words = set()
    for scene in draw("seen", 300):
        for user, assistant in scene_conversation(scene, rng, 6):
            words |= set(re.findall(r"[a-z]+", f"{user} {assistant} {caption(scene, rng)}"))
    assert 30 < len(words) < 80


def test_impossible_questions_are_refused():
    rng = np.random.default_rng(0)
    single = Scene(SCENE.objects[:1], background=40)
    with pytest.raises(ValueError, match="kind must be one of"):
        sample_question(SCENE, rng, "weather")
    with pytest.raises(ValueError, match="no question with"):
        sample_question(single, rng, "relation")
    with pytest.raises(ValueError, match="at least 2 objects"):
        sample_question(single, rng, "count", about_anchor=True)
    with pytest.raises(ValueError, match="needs more scenes"):
        balanced_questions([SCENE], rng, 10)
    with pytest.raises(ValueError, match="num_turns must be >= 1"):
        scene_conversation(SCENE, rng, 0)
