"""The demonstration's first half: describing, answering, chatting, filling holes in text."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from unidiff.data.sources.garments import (
    CLASS_NAMES,
    caption_names_class,
    draw_question,
    garment_conversation,
    with_article,
)
from unidiff.data.sources.held_out import HeldOut, Picture, scene_pictures
from unidiff.data.sources.library_text import iter_documents
from unidiff.data.sources.scene_facts import QUESTION_KINDS
from unidiff.data.sources.scene_language import (
    available_answers,
    caption,
    caption_matches,
    sample_question,
    scene_conversation,
)
from unidiff.data.sources.scenes import Scene

from . import samplers
from .chat import Conversation
from .pictures import DESCRIBE, ask_about
from .session import Session
from .showcase import Row

PHOTOGRAPHS, SCENES = 6, 4
CHAT_TURNS = 4
TEXT_HOLES = 2  # of each kind
_WORD = re.compile(r"(?<=\S) [a-z]{3,}\b")
_SENTENCE = re.compile(r"[A-Z][a-z' ,]{40,90}\.")
_CODE_LINE = re.compile(r"[ ]*(?:def|return|if|for|raise|self\.\w+ =) [\w .,:()=\[\]'\"]{16,60}")


def describe(session: Session, data: HeldOut) -> list[Row]:
    """Captions of photographs and of unseen scenes."""
    chosen = data.choose_photographs(1, PHOTOGRAPHS)
    scenes = data.choose_scenes(1, SCENES)
    pictures = [*data.photographs[chosen], *scene_pictures(scenes)]
    options = {**samplers.ANSWER, "seed": data.seed}
    answers = ask_about(session, pictures, [DESCRIBE] * len(pictures), options)
    rows = []
    for index, picture, answer in zip(chosen, pictures, answers, strict=False):
        label = int(data.labels[index])
        is_right = caption_names_class(answer.value) == label
        truth = with_article(CLASS_NAMES[label])
        rows.append(Row.of("describe", DESCRIBE, answer, truth, is_right, [picture]))
    rest = zip(scenes, pictures[len(chosen) :], answers[len(chosen) :], strict=True)
    for scene, picture, answer in rest:
        is_right = caption_matches(answer.value, scene)
        truth = caption(scene, data.rng(2))
        rows.append(Row.of("describe", DESCRIBE, answer, truth, is_right, [picture]))
    return rows


def question(session: Session, data: HeldOut) -> list[Row]:
    """Questions about photographs, and about what is new in unseen scenes."""
    rng = data.rng(3)
    chosen = data.choose_photographs(3, PHOTOGRAPHS)
    kinds = ("name", "category", "footwear", "identity", "identity", "name")
    asked = [
        draw_question(int(data.labels[index]), rng, kind)
        for index, kind in zip(chosen, kinds, strict=True)
    ]
    pictures = list(data.photographs[chosen])
    for kind, (scene, picture) in zip(QUESTION_KINDS, _askable_scenes(data), strict=True):
        one = sample_question(scene, rng, kind, about_anchor=True)
        asked.append((one.text, one.answer))
        pictures.append(picture)
    options = {**samplers.ANSWER, "seed": data.seed}
    answers = ask_about(session, pictures, [text for text, _ in asked], options)
    return [
        Row.of("answer", text, answer, truth, answer.value.strip() == truth, [picture])
        for (text, truth), answer, picture in zip(asked, answers, pictures, strict=True)
    ]


def _askable_scenes(data: HeldOut) -> Iterator[tuple[Scene, np.ndarray]]:
    """An unseen scene, and its picture, for each kind of question."""
    scenes = data.choose_scenes(3, 40)
    for kind in QUESTION_KINDS:
        scene = next(one for one in scenes if available_answers(one, kind, about_anchor=True))
        scenes.remove(scene)
        yield scene, scene_pictures([scene])[0]


def converse(session: Session, data: HeldOut) -> list[Row]:
    """A conversation about a photograph and one about an unseen scene."""
    index = int(data.choose_photographs(4, 1)[0])
    label, rng = int(data.labels[index]), data.rng(4)
    turns = garment_conversation(label, rng, CHAT_TURNS)
    rows = _conversation(session, data, data.photographs[index], turns, None)
    scene = data.choose_scenes(4, 1, num_objects=3)[0]
    turns = scene_conversation(scene, rng, CHAT_TURNS)
    return rows + _conversation(session, data, scene_pictures([scene])[0], turns, scene)


def _conversation(
    session: Session,
    data: HeldOut,
    picture: Picture,
    turns: list[tuple[str, str]],
    scene: Scene | None,
) -> list[Row]:
    """The user's turns, answered one after the other; the model's own answers stay in it."""
    conversation = Conversation(session, {**samplers.ANSWER, "seed": data.seed}, picture)
    rows = []
    for text, truth in turns:
        answer = conversation.say(text)
        is_right = _says_the_same(answer.value, truth, scene)
        rows.append(Row.of("chat", text, answer, truth, is_right, [picture]))
    return rows


def _says_the_same(said: str, truth: str, scene: Scene | None) -> bool:
    """Whether an answer equals the expected one, or is as good a caption."""
    if said.strip() == truth:
        return True
    if len(truth.split()) < 3:
        return False
    if scene is None:
        named = caption_names_class(said)
        return named is not None and named == caption_names_class(truth)
    return caption_matches(said, scene)


def fill_text(session: Session, data: HeldOut) -> list[Row]:
    """A missing word in sentences and code lines of held-out library modules."""
    rows = []
    tokenizer = session.processor.tokenizer
    for before, word, after in _texts_with_holes(data):
        length = len(tokenizer(word, add_special_tokens=False)["input_ids"])
        inputs = session.processor.for_text_infill([before, length, after])
        answer = session.answer(inputs, {**samplers.filling(inputs), "seed": data.seed})[0]
        value: Any = answer.value
        filled = value[len(before) : len(value) - len(after)]
        given = f"{before} [{'_' * 4}]{after}".strip()
        is_right = True if filled.strip() == word.strip() else None
        rows.append(
            Row.of("fill text", given, answer, word.strip(), is_right, output=value.strip())
        )
    return rows


def _texts_with_holes(data: HeldOut) -> list[tuple[str, str, str]]:
    """(before, the missing word, after): sentences, then code lines."""
    documents = list(iter_documents("heldout"))
    prose = "\n".join(text.replace("\n", " ") for name, text in documents if "__doc__" in name)
    code = "\n".join(text for name, text in documents if "__doc__" not in name)
    rng = data.rng(5)
    chosen = []
    for pattern, text in ((_SENTENCE, prose), (_CODE_LINE, code)):
        found = [match.group().strip() for match in pattern.finditer(text)]
        found = [one for one in found if _WORD.search(one)]
        for number in rng.permutation(len(found))[:TEXT_HOLES].tolist():
            words = list(_WORD.finditer(found[number]))
            word = words[int(rng.integers(len(words)))]
            line = found[number]
            chosen.append((line[: word.start()], word.group(), line[word.end() :]))
    return chosen
