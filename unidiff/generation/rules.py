"""What one row may write: ids allowed at each place of its canvas, and a grammar for its text.

A rule follows its row. It is shown the canvas before each step, answers which ids a position may
take, and is told of every token that is revealed, so that tokens revealed together fit together. In
left-to-right decoding it answers for the place behind the known tokens. Knows no tensors.
"""

# Shapes: P places of a response or canvas, K canvas columns, S states, V ids.

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .automaton import DEAD, Edges, TokenAutomaton
from .reachability import MASKED, SKIPPED, Reach


@dataclass
class Grammar:
    """A row's automaton and where the row stands in it.

    Attributes:
        automaton: what the text has to match.
        edges: what a masked token may be at each of the P places.
        goals: P + 1 sets of states before each place from which the text can be completed.
        skipped_P: (P,) bool, places of a given canvas that are not part of the text.
        reach: of the canvas last shown.
    """

    automaton: TokenAutomaton
    edges: Sequence[Edges]
    goals: Sequence[np.ndarray]
    skipped_P: np.ndarray
    reach: Reach | None = None
    _first_place: int = -1
    _walked: int = 0
    _state: int = field(init=False)

    def __post_init__(self) -> None:
        """Stand at the start."""
        self._state = self.automaton.start

    def see(
        self, place: int, ids_K: np.ndarray, masked_K: np.ndarray, known: Sequence[int]
    ) -> None:
        """Take in a canvas as it stands.

        Args:
            place: of its first position.
            ids_K: (K,) int64 tokens, read where known.
            masked_K: (K,) bool.
            known: tokens before it, the first of them at place 0.
        """
        stop = place + len(ids_K)
        known_K = np.where(masked_K, MASKED, self.automaton.class_V[ids_K])
        known_K[self.skipped_P[place:stop]] = SKIPPED
        seen = self.reach
        if seen and place == self._first_place and np.array_equal(known_K, seen.known_K):
            return
        start = self.automaton.set_of(np.array([self._state_behind(known[:place])]))
        edges = self.edges[place:stop]
        self._first_place = place
        self.reach = Reach(self.automaton, start, self.goals[stop], known_K, edges)

    def allowed(self, column: int) -> np.ndarray | None:
        """(V,) bool ids that a position of the canvas may take; None where no text is."""
        assert self.reach is not None
        if self.reach.known_K[column] == SKIPPED:
            return None
        allowed_V: np.ndarray = self.reach.allowed(column)[self.automaton.class_V]
        return allowed_V

    def fix(self, column: int, token: int) -> None:
        """Take note of a revealed token."""
        assert self.reach is not None
        if self.reach.known_K[column] != SKIPPED:
            self.reach.fix(column, int(self.automaton.class_V[token]))

    def allowed_behind(self, known: Sequence[int], draft: Sequence[int]) -> np.ndarray | None:
        """(V,) bool ids behind the known tokens and a draft; None if it broke the rule."""
        state = self.automaton.walk(self._state_behind(known), draft)
        place = len(known) + len(draft)
        if state == DEAD or not self.goals[place][state]:
            return None
        allowed_C = self.goals[place + 1][self.automaton.next_SC[state]]
        allowed_V: np.ndarray = (allowed_C & self.edges[place].permit_C)[self.automaton.class_V]
        return allowed_V

    def _state_behind(self, known: Sequence[int]) -> int:
        """The state after tokens that only ever grow in number."""
        if len(known) < self._walked:
            self._walked, self._state = 0, self.automaton.start
        self._state = self.automaton.walk(self._state, known[self._walked :])
        self._walked = len(known)
        return self._state


@dataclass
class Rule:
    """Everything that the caller's constraints say of one row.

    Attributes:
        grammar: of its text, or None.
        allowed_KV: (K, V) bool ids allowed at each position of a given canvas; None: any.
        num_prefix: columns of the canvas last shown that are prompt.
    """

    grammar: Grammar | None = None
    allowed_KV: np.ndarray | None = None
    num_prefix: int = 0

    def see(
        self, first: int, ids_K: np.ndarray, masked_K: np.ndarray, known: Sequence[int]
    ) -> None:
        """Take in a canvas as it stands; arguments as `Grammar.see`.

        Args:
            first: place of its first column; negative where it opens with prompt tokens.
            ids_K: (K,) int64.
            masked_K: (K,) bool.
            known: tokens of the response.
        """
        self.num_prefix = max(0, -first)
        if self.grammar is not None:
            ids_K, masked_K = ids_K[self.num_prefix :], masked_K[self.num_prefix :]
            self.grammar.see(max(first, 0), ids_K, masked_K, known)

    def allowed(self, column: int) -> np.ndarray | None:
        """(V,) bool ids that a column of the canvas last shown may take; None: any."""
        place = column - self.num_prefix
        allowed_V = None if self.grammar is None else self.grammar.allowed(place)
        if self.allowed_KV is None:
            return allowed_V
        given_V: np.ndarray = self.allowed_KV[place]
        return given_V if allowed_V is None else given_V & allowed_V

    def fix(self, column: int, token: int) -> None:
        """Take note of a revealed token."""
        if self.grammar is not None:
            self.grammar.fix(column - self.num_prefix, token)
