"""Temporal ensembling: each timestep executes the average of all chunks that foresaw it."""

# Shapes: T timesteps of a chunk, D dimensions, N timesteps foreseen.

import numpy as np


class TemporalEnsemble:
    """Running averages of the actions of the timesteps to come.

    The i-th chunk that foresees a timestep, from 0 for the oldest, weighs exp(-m i): m > 0 trusts
    old predictions more, m = 0 all alike, m < 0 the new ones. Only averages and counts are kept.

    Source: temporal ensemble of ACT, arXiv 2304.13705; the online update is an own derivation,
        checked against the sum over all chunks in tests/policy/test_policy_ensembling.py.

    Attributes:
        decay: m.
        mean_ND: (N, D) float64 average of each timestep to come, the next one first.
        count_N: (N,) int64 predictions in each average.
    """

    def __init__(self, decay: float = 0.01) -> None:
        """An ensemble that has seen no chunk."""
        self.decay = decay
        self.mean_ND: np.ndarray | None = None
        self.count_N = np.zeros(0, dtype=np.int64)

    def update(self, chunk_TD: np.ndarray) -> np.ndarray:
        """(T, D) float64 averages from now on, after a chunk that begins now.

        Args:
            chunk_TD: (T, D) actions; T as in every chunk before.
        """
        chunk_TD = np.asarray(chunk_TD, dtype=np.float64)
        known = len(self.count_N)
        if self.mean_ND is not None and known:
            new_N = np.exp(-self.decay * self.count_N)
            share_N = new_N / (self._total_weight(self.count_N) + new_N)
            old_ND = self.mean_ND
            mixed_ND = old_ND + (chunk_TD[:known] - old_ND) * share_N[:, None]
            chunk_TD = np.concatenate([mixed_ND, chunk_TD[known:]])
        self.mean_ND = chunk_TD
        fresh = np.zeros(len(chunk_TD) - known, dtype=np.int64)
        self.count_N = np.concatenate([self.count_N, fresh]) + 1
        return chunk_TD.copy()

    def advance(self, num_executed: int) -> None:
        """Forget the next `num_executed` timesteps: they are over."""
        if self.mean_ND is not None:
            self.mean_ND = self.mean_ND[num_executed:]
        self.count_N = self.count_N[num_executed:]

    def _total_weight(self, count_N: np.ndarray) -> np.ndarray:
        """(N,) sum of the weights of the first `count_N` predictions."""
        weight = np.exp(-self.decay * np.arange(count_N.max()))
        return np.asarray(weight.cumsum()[count_N - 1])
