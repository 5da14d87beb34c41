"""Toys of uniform noise: an exact denoiser that knows the time, and one that follows a script."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from conftest import MASK, NUM_IDS, ListCache, TableDenoiser
from torch import Tensor

from unidiff.generation.denoiser import Run
from unidiff.generation.generate import generate
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import OPTIONS

SUPPORT = torch.tensor([True] * NUM_IDS + [False])


def states(length: int) -> Tensor:
    """(V^L, L) every sequence, the first token the slowest."""
    return torch.tensor(list(itertools.product(range(NUM_IDS), repeat=length)))


def exact_reading(joint: Tensor, noisy_BL: Tensor, alpha: float, kind: str) -> Tensor:
    """(B, L, V) law of each clean token given the noisy ones, by summing over all sequences."""
    clean_SL, prob_S = states(joint.ndim), joint.reshape(-1)
    chance_BSL = alpha * (noisy_BL[:, None] == clean_SL).double() + (1 - alpha) / NUM_IDS
    law = torch.zeros(*noisy_BL.shape, NUM_IDS + 1, dtype=torch.float64)
    for place in range(joint.ndim):
        kept = [i for i in range(joint.ndim) if kind == "posterior" or i != place]
        weight_BS = prob_S * chance_BSL[:, :, kept].prod(-1)
        law[:, place].index_add_(1, clean_SL[:, place], weight_BS)
    return law / law.sum(-1, keepdim=True)


class NoisyTable(TableDenoiser):
    """What an exact head says under uniform noise; the prompt's token names the joint.

    It is not told the time: all rows take the same steps, so it counts its own forwards.
    """

    noise_process = "uniform"

    def __init__(self, joints: Sequence[Tensor], num_steps: int, kind: str) -> None:
        self.joints, self.num_steps, self.uniform_prediction = joints, num_steps, kind
        self.canvas_length = self.length = joints[0].ndim
        self.calls = 0
        self.seen: list[Tensor] = []

    def probe(
        self,
        cache: ListCache,
        canvas: Run,
        *,
        logits_at_BK: Tensor,
        commit: Run | None = None,
        id_range: tuple[int, int] | None = None,
    ) -> Tensor:
        if commit is not None:
            self.commit(cache, commit)
        self.seen.append(canvas.ids_BT.clone())
        assert not (canvas.ids_BT == MASK).any()
        alpha = self.calls / self.num_steps
        self.calls += 1
        prompt_B = torch.tensor([ids[0] for ids in cache.token_ids])
        law = torch.zeros(*canvas.ids_BT.shape, NUM_IDS + 1, dtype=torch.float64)
        for number, joint in enumerate(self.joints):
            rows = (prompt_B == number) & (canvas.length_B > 0)
            if bool(rows.any()):
                law[rows] = exact_reading(
                    joint, canvas.ids_BT[rows], alpha, self.uniform_prediction
                )
        logits = law[logits_at_BK].log()
        return logits if id_range is None else logits[:, slice(*id_range)]


class Script(TableDenoiser):
    """Says the same of every row, one (L, 4) table of logits for each forward."""

    noise_process = "uniform"
    uniform_prediction = "posterior"

    def __init__(self, tables: Tensor) -> None:
        self.tables = torch.cat([tables, torch.full_like(tables[..., :1], 50.0)], dim=-1)
        self.canvas_length = self.length = tables.shape[1]
        self.seen: list[Tensor] = []

    def probe(
        self,
        cache: ListCache,
        canvas: Run,
        *,
        logits_at_BK: Tensor,
        commit: Run | None = None,
        id_range: tuple[int, int] | None = None,
    ) -> Tensor:
        if commit is not None:
            self.commit(cache, commit)
        table = self.tables[len(self.seen)]
        self.seen.append(canvas.ids_BT.clone())
        logits = table.expand(len(canvas.ids_BT), -1, -1)[logits_at_BK]
        return logits if id_range is None else logits[:, slice(*id_range)]


def decoded(denoiser: Any, num_rows: int, prompt: int = 0, **options: Any) -> Any:
    """Output of a sampled decode of one canvas behind a one-token prompt."""
    negative = options.pop("negative", None)
    settings = {
        **OPTIONS,
        "do_sample": True,
        "max_new_tokens": denoiser.length,
        "seed": 20,
        **options,
    }
    prompts = torch.full((num_rows, 1), prompt)
    weaker = None if negative is None else torch.tensor([[negative]])
    return generate(
        denoiser, settings, GenerationInputs(input_ids=prompts, negative_input_ids=weaker)
    )


def counts_of(output: Any, length: int) -> Tensor:
    """(V^L,) how often each sequence came out."""
    place = NUM_IDS ** torch.arange(length - 1, -1, -1)
    return torch.bincount((output.sequences[:, 1:] * place).sum(1), minlength=NUM_IDS**length)


def chi_square(counts: Tensor, law: Tensor) -> float:
    """Pearson's statistic; sequences of the law's probability 0 must not occur."""
    expected = law * counts.sum()
    possible = expected > 0
    assert not counts[~possible].any()
    return float(((counts - expected)[possible] ** 2 / expected[possible]).sum())
