"""How well secondary remasking repairs a chunk in which wrong tokens were planted.

A chunk is planned, some of its tokens are replaced by others at least an eighth of the range away,
and the whole is offered as a draft. What the model doubts it gives back and plans anew.
"""

# Shapes: N chunks, T timesteps, D dimensions.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unidiff.evaluation.intervals import wilson_interval
from unidiff.tokens.actions import BinTokenizer
from unidiff_vla.driving import EpisodeRun, View
from unidiff_vla.driving.lockstep import plan_key
from unidiff_vla.environments import InstructedEnv
from unidiff_vla.policy import ChunkPolicy, MaskedDiffusionPolicy

PLANS_OF_EPISODE = 4  # chunks of each layout: from its start on


@dataclass(frozen=True)
class Planted:
    """Chunks before and after.

    Attributes:
        planned: (N, T, D) float32, as the policy planned them.
        drafts: (N, T, D) float32, with wrong tokens.
        mended: (N, T, D) float32, what came back.
        is_wrong: (N, T, D) bool, where tokens were planted.
    """

    planned: np.ndarray
    drafts: np.ndarray
    mended: np.ndarray
    is_wrong: np.ndarray

    def report(self, range_of_actions: np.ndarray) -> dict[str, Any]:
        """Rates with Wilson intervals, and mean distances as shares of each dimension's range.

        A planted token is repaired if it comes back nearer than halfway to what was planned.

        Args:
            range_of_actions: (D,) highest less lowest action.
        """
        before, after = (
            np.abs(chunks - self.planned) / np.where(range_of_actions > 0, range_of_actions, 1.0)
            for chunks in (self.drafts, self.mended)
        )
        is_near = (after < before / 2)[self.is_wrong]
        is_changed = (self.mended != self.drafts)[~self.is_wrong]
        return {
            "num_chunks": len(self.planned),
            "num_planted": int(self.is_wrong.sum()),
            "repaired": float(is_near.mean()),
            "interval": list(wilson_interval(int(is_near.sum()), is_near.size)),
            "distance_before": float(before[self.is_wrong].mean()),
            "distance_after": float(after[self.is_wrong].mean()),
            "right_tokens_changed": float(is_changed.mean()),
            "right_tokens_distance": float(after[~self.is_wrong].mean()),
        }


def plant_and_mend(
    policy: MaskedDiffusionPolicy,
    envs: Sequence[InstructedEnv],
    layouts: Sequence[int],
    num_planted: int,
    seed: int,
) -> Planted:
    """Drive layouts by what is planned, and mend a spoilt copy of each plan.

    Args:
        policy: one that `check_plantable` takes.
        envs: environments, each of which plays all the layouts.
        layouts: seeds of the layouts, at least one.
        num_planted: tokens of each chunk that are replaced.
        seed: of the plans, and of what is planted.

    Raises:
        ValueError: if an episode broke off before its first plan.
    """
    view, bins = View.of(policy), policy.bins
    found: list[tuple[np.ndarray, ...]] = []
    for env in envs:
        for layout in layouts:
            run = EpisodeRun(env, layout, view)
            while (seen := run.seen) is not None and run.num_plans < PLANS_OF_EPISODE:
                key = [plan_key(seed, layout, run.num_plans)]
                chunk = policy.predict_action_chunk([seen], seed=key)[0]
                rng = np.random.default_rng((seed, layout, run.num_plans))
                codes = bins.encode(chunk)
                spoilt, is_wrong = _spoilt(codes, bins.num_bins, num_planted, rng)
                draft = bins.decode(spoilt)
                mended = policy.predict_action_chunk(
                    [seen], seed=key, leftover=[draft], is_draft=True
                )[0]
                found.append((bins.decode(codes), draft, mended, is_wrong))
                run.num_plans += 1
                run.execute(chunk[: policy.num_executed])
            if not found:
                raise ValueError(f"layout {layout} broke off: {run.error}")
    return Planted(*(np.stack(column) for column in zip(*found, strict=True)))


def check_plantable(policy: ChunkPolicy, num_planted: int) -> None:
    """Raise ValueError unless the policy can mend so many planted tokens of a chunk."""
    if (
        not isinstance(policy, MaskedDiffusionPolicy)
        or policy.settings.decoding.get("revision") != "secondary"
    ):
        raise ValueError(
            "planted tokens are mended by secondary remasking: add "
            """--set 'decoding={"revision": "secondary"}' """
            f"(and weights trained on visible tokens); got {dict(policy.settings.decoding)}"
        )
    if not isinstance(policy.bins, BinTokenizer):
        raise ValueError(
            f"wrong tokens are planted among bins; the checkpoint has {type(policy.bins).__name__}"
        )
    size = policy.horizon * policy.dof
    if not 1 <= num_planted < size:
        raise ValueError(
            f"planted must lie in [1, {size - 1}], less than the chunk's tokens; got {num_planted}"
        )


def _spoilt(
    codes_TD: np.ndarray, num_bins: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(codes with `count` wrong ones, (T, D) bool where); each is an eighth of the bins away."""
    codes = codes_TD.copy().reshape(-1)
    is_wrong = np.zeros(codes.size, dtype=bool)
    is_wrong[rng.choice(codes.size, count, replace=False)] = True
    for place in np.flatnonzero(is_wrong):
        distance = np.abs(np.arange(num_bins) - codes[place])
        codes[place] = rng.choice(np.flatnonzero(distance >= max(1, num_bins // 8)))
    return codes.reshape(codes_TD.shape), is_wrong.reshape(codes_TD.shape)
