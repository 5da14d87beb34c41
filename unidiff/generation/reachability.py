"""Which tokens a canvas position may take, given what stands on both of its sides.

A position may take a token if some state that the tokens before it can lead to goes, by that token,
to a state from which the tokens behind it can be read and the text still be completed. Known tokens
restrict, masked positions allow whatever is permitted there. Knows automata; knows nothing of rows.
"""

# Shapes: K positions, S states, C classes.

from collections.abc import Sequence

import numpy as np

from .automaton import Edges, TokenAutomaton

MASKED = -1  # in place of a known class
SKIPPED = -2  # the position holds no text: the state passes it unchanged


class Reach:
    """States before each position of one canvas, from the left and from the right.

    Own derivation: forward and backward sets of a hidden Markov model whose probabilities are all 0
    or 1. Checked against enumeration in tests/generation/test_reachability.py.
    """

    def __init__(
        self,
        automaton: TokenAutomaton,
        start: np.ndarray,
        goal: np.ndarray,
        known_K: np.ndarray,
        edges: Sequence[Edges],
    ) -> None:
        """Compute both families of sets.

        Args:
            automaton: the grammar.
            start: (S + 1,) bool, states before the first position.
            goal: (S + 1,) bool, states behind the last one from which the text can be completed.
            known_K: (K,) int64 class of each known token, `MASKED` or `SKIPPED`.
            edges: what each position may be where it is masked.
        """
        self.automaton = automaton
        self.known_K = known_K.copy()
        self.edges = edges
        self.before = [start] * (len(known_K) + 1)
        self.behind = [goal] * (len(known_K) + 1)
        for column in range(len(known_K)):
            self.before[column + 1] = self._forward(column)
        for column in reversed(range(len(known_K))):
            self.behind[column] = self._backward(column)

    @property
    def is_possible(self) -> bool:
        """Whether the canvas can be completed at all."""
        return bool((self.before[0] & self.behind[0]).any())

    def allowed(self, column: int) -> np.ndarray:
        """(C,) bool classes that the position may take, whatever stands there now."""
        states = np.nonzero(self.before[column])[0]
        after = self.automaton.next_SC[states]
        allowed_C: np.ndarray = self.behind[column + 1][after].any(0) & self.edges[column].permit_C
        return allowed_C

    def fix(self, column: int, token_class: int) -> None:
        """Let a position be known; the sets on both sides follow."""
        self.known_K[column] = token_class
        for later in range(column, len(self.known_K)):
            states = self._forward(later)
            if np.array_equal(states, self.before[later + 1]):
                break
            self.before[later + 1] = states
        for earlier in range(column, -1, -1):
            states = self._backward(earlier)
            if np.array_equal(states, self.behind[earlier]):
                break
            self.behind[earlier] = states

    def _forward(self, column: int) -> np.ndarray:
        """(S + 1,) bool states behind a position, from those before it."""
        states, known = self.before[column], int(self.known_K[column])
        if known == SKIPPED:
            return states
        if known == MASKED:
            return self.edges[column].forward(states)
        return self.automaton.set_of(self.automaton.next_SC[states[:-1], known])

    def _backward(self, column: int) -> np.ndarray:
        """(S + 1,) bool states before a position, from those behind it."""
        states, known = self.behind[column + 1], int(self.known_K[column])
        if known == SKIPPED:
            return states
        if known == MASKED:
            return self.edges[column].backward(states)
        return np.append(states[self.automaton.next_SC[:, known]], False)


def completable(automaton: TokenAutomaton, edges: Sequence[Edges]) -> list[np.ndarray]:
    """(S + 1,) bool states before each of P places from which a text can be completed.

    Args:
        automaton: the grammar.
        edges: what each place may be; there is no place behind the last.

    Returns:
        P + 1 sets, the last one of the final states.
    """
    goals = [automaton.finals]
    last: Edges | None = None
    is_settled = False
    for permitted in reversed(edges):
        if is_settled and permitted is last:  # the same set for ever
            goals.append(goals[-1])
            continue
        states = permitted.backward(goals[-1])
        is_settled = bool(np.array_equal(states, goals[-1]))
        last = permitted
        goals.append(states)
    return goals[::-1]
