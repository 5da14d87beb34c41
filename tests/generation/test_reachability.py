"""Allowed tokens of a canvas against the enumeration of everything that it can become."""

import numpy as np
import pytest
from small_grammars import random_automaton, texts

from unidiff.generation.automaton import with_end_tokens
from unidiff.generation.reachability import MASKED, SKIPPED, Reach, completable

NUM_IDS = 4  # id 3 ends
LENGTH = 5


def brute_allowed(found: set[tuple[int, ...]], known: list[int | None], place: int) -> set[int]:
    """Ids at a place of the texts that agree with all other known tokens."""
    others = [i for i, token in enumerate(known) if token is not None and i != place]
    return {text[place] for text in found if all(text[i] == known[i] for i in others)}


@pytest.mark.parametrize("seed", range(12))
def test_allowed_ids_equal_those_of_all_completions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    automaton = with_end_tokens(random_automaton(generator, 5, NUM_IDS), (3,))
    edges = automaton.edges(automaton.permit(np.ones(NUM_IDS, dtype=bool), with_end=True))
    goals = completable(automaton, [edges] * LENGTH)
    found = texts(automaton, LENGTH)
    start = automaton.set_of(np.array([automaton.start]))
    assert bool(goals[0][automaton.start]) == bool(found)
    for width in (2, LENGTH):  # a canvas with room behind it, and one without
        known: list[int | None] = [None] * LENGTH
        known_K = np.full(width, MASKED)
        reach = Reach(automaton, start, goals[width], known_K, [edges] * width)
        for place in generator.permutation(width):
            for column in range(width):
                ids = np.nonzero(reach.allowed(column)[automaton.class_V])[0]
                assert set(ids.tolist()) == brute_allowed(found, known, column)
            if not found:
                break
            ids = np.nonzero(reach.allowed(place)[automaton.class_V])[0]
            known[place] = int(generator.choice(ids))
            reach.fix(int(place), int(automaton.class_V[known[place]]))
            assert reach.is_possible
            known_K[place] = automaton.class_V[known[place]]
            again = Reach(automaton, start, goals[width], known_K, [edges] * width)
            assert all(map(np.array_equal, reach.before, again.before))
            assert all(map(np.array_equal, reach.behind, again.behind))


@pytest.mark.parametrize("seed", range(6))
def test_places_with_own_permits_equal_enumeration(seed: int) -> None:
    generator = np.random.default_rng(100 + seed)
    automaton = random_automaton(generator, 4, NUM_IDS)
    permits = generator.random((LENGTH, NUM_IDS)) < 0.7
    edges = [automaton.edges(automaton.permit(ids_V, with_end=False)) for ids_V in permits]
    found = {
        text
        for text in texts(automaton, LENGTH)
        if all(permits[place, token] for place, token in enumerate(text))
    }
    goals = completable(automaton, edges)
    assert bool(goals[0][0]) == bool(found)
    start = automaton.set_of(np.array([0]))
    reach = Reach(automaton, start, goals[LENGTH], np.full(LENGTH, MASKED), edges)
    for column in range(LENGTH):
        ids = np.nonzero(reach.allowed(column)[automaton.class_V])[0].tolist()
        assert set(ids) == brute_allowed(found, [None] * LENGTH, column)


def test_goals_with_a_fixpoint_equal_goals_without_a_shortcut() -> None:
    automaton = with_end_tokens(random_automaton(np.random.default_rng(3), 6, NUM_IDS), (3,))
    early_C, all_C = (
        automaton.permit(np.ones(NUM_IDS, dtype=bool), with_end) for with_end in (False, True)
    )
    edges = [automaton.edges(early_C)] * 7 + [automaton.edges(all_C)] * 20
    goals = completable(automaton, edges)
    states = automaton.finals
    for permitted, goal in zip(reversed(edges), reversed(goals[:-1]), strict=True):
        states = permitted.backward(states)
        assert np.array_equal(states, goal)


def test_places_without_text_pass_the_state_on() -> None:
    automaton = random_automaton(np.random.default_rng(5), 4, 3)
    edges = automaton.edges(np.ones(4, dtype=bool))
    start, goal = automaton.set_of(np.array([0])), automaton.finals
    short = Reach(automaton, start, goal, np.full(2, MASKED), [edges] * 2)
    known = np.array([SKIPPED, MASKED, SKIPPED, MASKED, SKIPPED])
    long = Reach(automaton, start, goal, known, [edges] * 5)
    assert np.array_equal(short.allowed(0), long.allowed(1))
    assert np.array_equal(short.allowed(1), long.allowed(3))
