"""What can be said about a drawn scene: captions, questions, drawing requests, conversations.

Lower case, a small set of words. Questions have one-word answers and come in four kinds: `count`,
`colour`, `relation`, `existence`; what may be asked is decided in scene_facts.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .scene_facts import (
    ANSWERS,
    NUMBER_WORDS,
    QUESTION_KINDS,
    Fact,
    answer_sentence,
    phrase_question,
    scene_facts,
    sole_neighbours,
)
from .scenes import (
    COLOURS,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    Scene,
    is_unseen_combination,
    relation_between,
    scene_relations,
)

# Large counts are possible in few scenes: preferring them there evens the answers out overall.
_ANSWER_WEIGHT = {"two": 2.0, "three": 5.0, "four": 10.0}
_CAPTIONS = ("{0}", "there is {0}", "a picture of {0}")
_DRAWINGS = ("draw {0}", "paint {0}", "make a picture of {0}", "please draw {0}")
_CAPTION_REQUESTS = ("what do you see?", "describe the picture.", "what is in the picture?")


@dataclass(frozen=True)
class Question:
    """A question about one scene, its one-word answer, and its kind."""

    text: str
    answer: str
    kind: str


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A true sentence that names every object, and the anchor's relation where there is one."""
    return _pick(_CAPTIONS, rng).format(_description(scene, rng))


def caption_matches(text: str, scene: Scene) -> bool:
    """Whether a caption names exactly the scene's objects and claims only true relations.

    Two objects or more need at least one relation; words around the names do not matter.
    """
    name = f"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
    named = re.findall(rf"\b{name}\b", text)
    claims = re.findall(rf"\b({name}) ({'|'.join(RELATIONS)}) an? ({name})\b", text)
    if sorted(named) != sorted(item.name for item in scene.objects):
        return False
    if scene.anchor is not None and not claims:
        return False
    return set(claims) <= set(scene_relations(scene))


def drawing_request(scene: Scene, rng: np.random.Generator) -> str:
    """A request to draw a scene of one or two objects.

    Raises:
        ValueError: if the scene has more than two objects.
    """
    if len(scene.objects) > 2:
        raise ValueError(f"a request names 1 or 2 objects; got {len(scene.objects)}")
    return _pick(_DRAWINGS, rng).format(_description(scene, rng))


def available_answers(scene: Scene, kind: str, about_anchor: bool = False) -> tuple[str, ...]:
    """The answers that some question of this kind about this scene has.

    Raises:
        ValueError: if the kind is unknown, or a single object is asked about as an anchor.
    """
    return tuple(sorted({fact.answer for fact in scene_facts(scene, kind, about_anchor)}))


def sample_question(
    scene: Scene,
    rng: np.random.Generator,
    kind: str | None = None,
    *,
    answer: str | None = None,
    about_anchor: bool = False,
) -> Question:
    """A random question about a scene, its answer drawn as evenly as the scene allows.

    Args:
        scene: the scene to ask about.
        rng: source of all randomness.
        kind: one of QUESTION_KINDS; drawn from those the scene allows when None.
        answer: the answer the question shall have; drawn when None.
        about_anchor: ask only about the first two objects (the combination under test).

    Raises:
        ValueError: if the scene has no such question.
    """
    kinds = QUESTION_KINDS if kind is None else (kind,)
    for choice in rng.permutation(len(kinds)).tolist():
        facts = scene_facts(scene, kinds[choice], about_anchor)
        if answer is not None:
            facts = [fact for fact in facts if fact.answer == answer]
        if facts:
            fact = _draw_fact(facts, rng)
            return Question(phrase_question(fact, rng), fact.answer, kinds[choice])
    raise ValueError(
        f"this scene of {len(scene.objects)} objects has no question with {kind=} {answer=} "
        f"{about_anchor=}; ask available_answers first"
    )


def balanced_questions(
    scenes: Sequence[Scene],
    rng: np.random.Generator,
    per_kind: int,
    *,
    about_anchor: bool = False,
) -> list[tuple[int, Question]]:
    """Questions for an evaluation, `per_kind` of each kind, with answers as even as possible.

    Each scene gives at most one question per kind. A quota per answer is filled first; where the
    scenes run out of an answer, other answers fill up (rarest first).

    Returns:
        Pairs (index of the scene, question), grouped by kind.

    Raises:
        ValueError: if the scenes do not suffice.
    """
    chosen = []
    for kind in QUESTION_KINDS:
        drawn = _balanced_kind(scenes, rng, kind, per_kind, about_anchor)
        if len(drawn) < per_kind:
            raise ValueError(
                f"{len(scenes)} scenes give {len(drawn)} questions of kind {kind!r}; "
                f"{per_kind=} needs more scenes"
            )
        chosen.extend(drawn)
    return chosen


def scene_conversation(
    scene: Scene, rng: np.random.Generator, num_turns: int
) -> list[tuple[str, str]]:
    """A conversation about one scene, as (user text, assistant text) per turn.

    Mixes captions, questions answered by one word or, where the user asks for it, by a sentence,
    and follow-ups that need the turn before ("and what colour is it?").

    Raises:
        ValueError: if `num_turns` is below 1.
    """
    if num_turns < 1:
        raise ValueError(f"num_turns must be >= 1; got {num_turns=}")
    turns: list[tuple[str, str]] = []
    asked: set[Fact] = set()
    last: Fact | None = None
    while len(turns) < num_turns:
        follow = _follow_up(scene, last, rng) if last is not None else None
        if follow is not None and rng.random() < 0.6:
            turns.append(follow)
            last = None
        elif rng.random() < (0.4 if not turns else 0.1):
            turns.append((_pick(_CAPTION_REQUESTS, rng), caption(scene, rng)))
            last = None
        else:
            last = _new_fact(scene, rng, asked)
            asked.add(last)
            turns.append(_question_turn(last, rng))
    return turns


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _description(scene: Scene, rng: np.random.Generator) -> str:
    """Noun phrase for all objects: the anchor with its relation, then the rest."""
    names = [f"a {item.name}" for item in scene.objects]
    if scene.anchor is None:
        return names[0]
    first = int(rng.integers(2))
    relation = relation_between(scene.objects[first], scene.objects[1 - first])
    parts = [f"{names[first]} {relation} {names[1 - first]}"]
    return ", also ".join(parts + [names[i] for i in rng.permutation(range(2, len(names)))])


def _draw_fact(facts: list[Fact], rng: np.random.Generator) -> Fact:
    """First the answer (rare counts preferred), then the form, then the fact."""
    answers = sorted({fact.answer for fact in facts})
    weight = np.array([_ANSWER_WEIGHT.get(answer, 1.0) for answer in answers])
    answer = answers[int(rng.choice(len(answers), p=weight / weight.sum()))]
    facts = [fact for fact in facts if fact.answer == answer]
    form = _pick(sorted({fact.form for fact in facts}), rng)
    facts = [fact for fact in facts if fact.form == form]
    return facts[int(rng.integers(len(facts)))]


def _balanced_kind(
    scenes: Sequence[Scene],
    rng: np.random.Generator,
    kind: str,
    per_kind: int,
    about_anchor: bool,
) -> list[tuple[int, Question]]:
    """Up to `per_kind` questions: a first pass under a quota per answer, then a free one."""
    count = Counter(dict.fromkeys(ANSWERS[kind], 0))
    num_possible = len(count) - (about_anchor and "zero" in count)  # the anchor is always there
    quota = -(-per_kind // num_possible)
    drawn: list[tuple[int, Question]] = []
    left = rng.permutation(len(scenes)).tolist()
    for limit in (quota, per_kind):
        skipped = []
        for index in left:
            options = available_answers(scenes[index], kind, about_anchor)
            options = tuple(answer for answer in options if count[answer] < limit)
            if not options or len(drawn) == per_kind:
                skipped.append(index)
                continue
            answer = min(options, key=lambda option: count[option])
            question = sample_question(
                scenes[index], rng, kind, answer=answer, about_anchor=about_anchor
            )
            drawn.append((index, question))
            count[answer] += 1
        left = skipped
    return drawn


def _new_fact(scene: Scene, rng: np.random.Generator, asked: set[Fact]) -> Fact:
    """A fact of a random kind, one not asked yet where a few draws find it."""
    for _ in range(5):
        kinds = [QUESTION_KINDS[i] for i in rng.permutation(len(QUESTION_KINDS))]
        facts = next(found for kind in kinds if (found := scene_facts(scene, kind)))
        fact = _draw_fact(facts, rng)
        if fact not in asked:
            break
    return fact


def _question_turn(fact: Fact, rng: np.random.Generator) -> tuple[str, str]:
    """The question with a one-word answer or, asked for, with a sentence."""
    text = phrase_question(fact, rng)
    if rng.random() < 0.75:
        return text, fact.answer
    return f"{text} answer in a sentence.", answer_sentence(fact)


def _follow_up(scene: Scene, last: Fact, rng: np.random.Generator) -> tuple[str, str] | None:
    """A turn that needs the turn before to be understood, or None where none fits."""
    if last.form == "count all":
        colour = _pick(sorted({item.colour for item in scene.objects}), rng)
        count = sum(item.colour == colour for item in scene.objects)
        return f"and how many of them are {colour}?", NUMBER_WORDS[count]
    if last.form == "colour of":
        names = {item.shape: item.name for item in scene.objects}
        return _what_is_beside(scene, names[last.slots[0]], rng)
    if last.form == "exists" and last.answer == "yes":
        return _what_is_beside(scene, last.slots[0], rng)
    if last.form == "shape at":
        for relation, reference, item in sole_neighbours(scene, scene.objects):
            if (relation, reference.name) == last.slots:
                return "and what colour is it?", item.colour
    if last.form == "is at" and last.answer == "yes":
        return _turned_round(scene, last.slots, rng)
    return None


def _turned_round(
    scene: Scene, slots: tuple[str, ...], rng: np.random.Generator
) -> tuple[str, str]:
    """Asks about a true pair the other way round, truly or (where it may be said) falsely."""
    first, relation, second = slots
    may_say = scene.is_unseen or not is_unseen_combination(second, relation, first)
    if may_say and rng.random() < 0.5:
        return f"and is the {second} {relation} the {first}?", "no"
    return f"and is the {second} {OPPOSITE[relation]} the {first}?", "yes"


def _what_is_beside(scene: Scene, name: str, rng: np.random.Generator) -> tuple[str, str] | None:
    """Asks what lies on one side of the object just spoken of."""
    places = [
        (relation, item.shape)
        for relation, reference, item in sole_neighbours(scene, scene.objects)
        if reference.name == name
    ]
    if not places:
        return None
    relation, shape = places[int(rng.integers(len(places)))]
    return f"and what is {relation} it?", shape
