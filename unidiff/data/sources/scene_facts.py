"""Everything that may be asked about a drawn scene, and the words for asking it.

A scene without unseen combination is never asked about one either (not even with the answer no),
so the words of an unseen combination never occur in training. Truth is what
`scenes.relation_between` says; pairs that are not aligned are not asked about.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from .scenes import (
    ALIGNED,
    COLOURS,
    KINDS,
    RELATIONS,
    SHAPES,
    Scene,
    SceneObject,
    is_unseen_combination,
    relation_between,
)

QUESTION_KINDS = ("count", "colour", "relation", "existence")
NUMBER_WORDS = ("zero", "one", "two", "three", "four")
ANSWERS: dict[str, tuple[str, ...]] = {
    "count": NUMBER_WORDS,
    "colour": tuple(COLOURS),
    "relation": ("yes", "no", *SHAPES),
    "existence": ("yes", "no"),
}


# form of a question: its phrasings, and the sentence that answers it
_FORMS: dict[str, tuple[tuple[str, ...], str]] = {
    "count all": (
        ("how many shapes are there?", "how many shapes do you see?"),
        "the number of shapes is {answer}.",
    ),
    "count some": (
        ("how many {0}s are there?", "how many {0}s do you see?"),
        "the number of {0}s is {answer}.",
    ),
    "colour of": (("what colour is the {0}?", "which colour is the {0}?"), "the {0} is {answer}."),
    "colour at": (
        ("what colour is the shape {0} the {1}?", "which colour is the shape {0} the {1}?"),
        "the shape {0} the {1} is {answer}.",
    ),
    "is at": (("is the {0} {1} the {2}?",), "{answer}, the {0} is {not}{1} the {2}."),
    "shape at": (
        ("what is {0} the {1}?", "which shape is {0} the {1}?"),
        "a {answer} is {0} the {1}.",
    ),
    "exists": (
        ("is there a {0}?", "do you see a {0}?"),
        "{answer}, there is {no}{0}.",
    ),
}


@dataclass(frozen=True)
class Fact:
    """A question before it is phrased: a form, the words in its slots, the answer."""

    form: str
    slots: tuple[str, ...]
    answer: str


def phrase_question(fact: Fact, rng: np.random.Generator) -> str:
    """One of the phrasings of the question."""
    phrasings = _FORMS[fact.form][0]
    return phrasings[int(rng.integers(len(phrasings)))].format(*fact.slots)


def answer_sentence(fact: Fact) -> str:
    """The answer as a whole sentence."""
    is_no = fact.answer == "no"
    words = {"answer": fact.answer, "not": "not " if is_no else "", "no": "no " if is_no else "a "}
    return _FORMS[fact.form][1].format(*fact.slots, **words)


def scene_facts(scene: Scene, kind: str, about_anchor: bool = False) -> list[Fact]:
    """Everything of one kind that may be asked about a scene (about its anchor only)."""
    if kind not in _FACTS:
        raise ValueError(f"kind must be one of {QUESTION_KINDS}; got {kind=}")
    if about_anchor and scene.anchor is None:
        raise ValueError("about_anchor needs a scene with at least 2 objects; got 1")
    about = scene.objects[:2] if about_anchor else scene.objects
    return _FACTS[kind](scene, about, about_anchor)


def _count_facts(scene: Scene, about: tuple[SceneObject, ...], about_anchor: bool) -> list[Fact]:
    colours = Counter(item.colour for item in scene.objects)
    shapes = Counter(item.shape for item in scene.objects)
    asked_colours = {item.colour for item in about} if about_anchor else set(COLOURS)
    asked_shapes = {item.shape for item in about} if about_anchor else set(SHAPES)
    facts = [Fact("count all", (), NUMBER_WORDS[len(scene.objects)])]
    for colour in sorted(asked_colours):
        facts.append(Fact("count some", (f"{colour} shape",), NUMBER_WORDS[colours[colour]]))
    for shape in sorted(asked_shapes):
        facts.append(Fact("count some", (shape,), NUMBER_WORDS[shapes[shape]]))
    return facts


def _colour_facts(scene: Scene, about: tuple[SceneObject, ...], about_anchor: bool) -> list[Fact]:
    del about_anchor
    shapes = Counter(item.shape for item in scene.objects)
    facts = [
        Fact("colour of", (item.shape,), item.colour) for item in about if shapes[item.shape] == 1
    ]
    for relation, reference, item in sole_neighbours(scene, about):
        facts.append(Fact("colour at", (relation, reference.name), item.colour))
    return facts


def _relation_facts(scene: Scene, about: tuple[SceneObject, ...], about_anchor: bool) -> list[Fact]:
    del about_anchor
    facts = [
        Fact("shape at", (relation, reference.name), item.shape)
        for relation, reference, item in sole_neighbours(scene, about)
    ]
    may_mention_all = scene.is_unseen
    for first in about:
        for second in about:
            truth = relation_between(first, second) if first is not second else None
            if truth is None:
                continue
            for relation in RELATIONS:
                words = (first.name, relation, second.name)
                if may_mention_all or not is_unseen_combination(*words):
                    facts.append(Fact("is at", words, "yes" if relation == truth else "no"))
    return facts


def _existence_facts(
    scene: Scene, about: tuple[SceneObject, ...], about_anchor: bool
) -> list[Fact]:
    """All kinds of object; about the anchor: the pair, and near misses that share a word."""
    present = {(item.colour, item.shape) for item in scene.objects}
    facts = [Fact("exists", (item.name,), "yes") for item in about]
    for colour, shape in KINDS:
        is_near = any(colour == item.colour or shape == item.shape for item in about)
        if (colour, shape) not in present and (is_near or not about_anchor):
            facts.append(Fact("exists", (f"{colour} {shape}",), "no"))
    return facts


_FACTS = {
    "count": _count_facts,
    "colour": _colour_facts,
    "relation": _relation_facts,
    "existence": _existence_facts,
}


def sole_neighbours(
    scene: Scene, about: tuple[SceneObject, ...]
) -> list[tuple[str, SceneObject, SceneObject]]:
    """(relation, reference, item): `item` is the only object on that side, and aligned."""
    found = []
    for reference in about:
        for item in about:
            relation = relation_between(item, reference) if item is not reference else None
            if relation is None:
                continue
            others = [x for x in scene.objects if x is not item and x is not reference]
            if not any(_is_on_side(x, relation, reference) for x in others):
                found.append((relation, reference, item))
    return found


def _is_on_side(item: SceneObject, relation: str, reference: SceneObject) -> bool:
    """Whether a reader could take `item` to be on that side, aligned or not."""
    offset = {
        "left of": reference.column - item.column,
        "right of": item.column - reference.column,
        "above": reference.row - item.row,
        "below": item.row - reference.row,
    }
    return offset[relation] > ALIGNED
