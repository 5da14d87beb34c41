"""Agreement report of approximate reuse: what each kind saves, and what it changes.

Every kind decodes the same prompts with the same seeds as the run without reuse, one batch after
the other, kinds interleaved. Beside the ratio of times stand the agreement of the tokens and the
quality of the texts under a judge that had no part in them.
"""

# Shapes: B rows, L prompt tokens, G generated tokens.

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor

from unidiff.generation.config import resolve_options
from unidiff.generation.generate import generate
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import APPROXIMATE_CACHE_REUSES
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.reuse import ReuseDenoiser, denoiser_for

NONE = "none"
Judge = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[str, int, int], None]


@dataclass
class KindRuns:
    """What one kind did with every batch.

    Attributes:
        options: decoding options of its own.
        wall_seconds: of each batch.
        cpu_seconds: of each batch, all threads together.
        responses: (B, G) int64 of each batch.
        num_forwards: of the slowest row of each batch.
        statistics: of its last batch; None without reuse.
    """

    options: dict[str, Any]
    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    responses: list[Tensor] = field(default_factory=list)
    num_forwards: list[int] = field(default_factory=list)
    statistics: list[dict[str, Any]] = field(default_factory=list)


def reuse_report(
    model: UniDiffForBlockDiffusion,
    prompts: Sequence[Tensor],
    options: Mapping[str, Any],
    kinds: Mapping[str, Mapping[str, Any]] | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Speed, agreement and quality of each kind against the run without reuse.

    Args:
        model: weights with `attention_pattern="full"`.
        prompts: batches of (B, L) int64 prompts without padding; one timed pair of each.
        options: decoding options common to all; they need a `seed`, an `eos_token_id` of -1 keeps
            the responses of one length.
        kinds: name -> options of it with `cache_reuse`; None: every kind with its defaults.
        judge: (prompt, response) -> (B,) nats of each response; None: quality is left out.
        progress: called with (kind, batches done, batches).

    Returns:
        Name -> numbers; `none` comes first.

    Raises:
        ValueError: if there is no prompt, or a batch's responses differ in length.
    """
    if not prompts:
        raise ValueError("prompts must hold at least one batch")
    if kinds is None:
        kinds = {kind: {"cache_reuse": kind} for kind in APPROXIMATE_CACHE_REUSES}
    runs = {NONE: KindRuns({"cache_reuse": NONE})}
    runs |= {name: KindRuns(dict(own)) for name, own in kinds.items()}
    for number, prompt_BL in enumerate(prompts):
        for name, run in runs.items():
            if progress is not None:
                progress(name, number, len(prompts))
            _decode(model, prompt_BL, {**options, **run.options}, run)
    return {name: _numbers(run, runs[NONE], prompts, judge) for name, run in runs.items()}


@torch.no_grad()
def _decode(
    model: UniDiffForBlockDiffusion, prompt_BL: Tensor, options: Mapping[str, Any], run: KindRuns
) -> None:
    """Decode one batch and note what it took and gave."""
    resolved = resolve_options(model.generation_config, None, options)
    denoiser = denoiser_for(model, resolved)
    wall, cpu = time.perf_counter(), time.process_time()
    output = generate(denoiser, resolved, GenerationInputs(input_ids=prompt_BL))
    run.wall_seconds.append(time.perf_counter() - wall)
    run.cpu_seconds.append(time.process_time() - cpu)
    assert output.sequences is not None
    assert output.num_forwards is not None
    run.responses.append(output.sequences[:, prompt_BL.shape[1] :])
    run.num_forwards.append(int(output.num_forwards.max()))
    if isinstance(denoiser, ReuseDenoiser):
        run.statistics.append(denoiser.statistics.to_dict())


def _numbers(
    run: KindRuns, exact: KindRuns, prompts: Sequence[Tensor], judge: Judge | None
) -> dict[str, Any]:
    """Everything about one kind."""
    num_tokens = sum(response.numel() for response in run.responses)
    numbers: dict[str, Any] = {
        "options": run.options,
        "seconds": {"wall": run.wall_seconds, "cpu": run.cpu_seconds},
        "tokens_per_second": num_tokens / sum(run.wall_seconds),
        "num_forwards": run.num_forwards,
        "speed_over_none": _ratios(exact.wall_seconds, run.wall_seconds),
        "cpu_speed_over_none": _ratios(exact.cpu_seconds, run.cpu_seconds),
        "agreement": agreement(run.responses, exact.responses),
        "distinct_pairs": distinct_pairs(run.responses),
    }
    if judge is not None:
        pairs = zip(prompts, run.responses, strict=True)
        nats = sum(float(judge(prompt, response).sum()) for prompt, response in pairs)
        numbers["judge_nats_per_token"] = nats / num_tokens
    if run.statistics:
        numbers["reuse"] = _mean(run.statistics)
    return numbers


def _ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """Ratio of times: the median over the pairs, and of the two shortest."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median_of_pairs": median(ratios), "of_shortest": min(slow) / min(fast)}


def agreement(found: Sequence[Tensor], exact: Sequence[Tensor]) -> dict[str, float]:
    """How far responses equal those of the exact run.

    Args:
        found: (B, G) int64 responses of each batch.
        exact: the same of the exact run.

    Returns:
        `equal_tokens` (share of the places), `identical_rows` (share), and `first_difference`
        (median place, counted from 0; the length of a row without one).

    Raises:
        ValueError: if the shapes differ.
    """
    if [one.shape for one in found] != [one.shape for one in exact]:
        raise ValueError("responses must have the shapes of the exact ones: use eos_token_id=-1")
    equal_RG = torch.cat([a == b for a, b in zip(found, exact, strict=True)])
    until_R = equal_RG.int().cumprod(1).sum(1)
    return {
        "equal_tokens": float(equal_RG.double().mean()),
        "identical_rows": float(equal_RG.all(1).double().mean()),
        "first_difference": float(median(until_R.tolist())),
    }


def distinct_pairs(responses: Sequence[Tensor]) -> float:
    """Share of neighbouring pairs that are new in their row; a text that repeats itself has few.

    A judge's likelihood alone would praise repetition.
    """
    shares = []
    for row in torch.cat(list(responses)).tolist():
        pairs = list(pairwise(row))
        shares.append(len(set(pairs)) / max(1, len(pairs)))
    return sum(shares) / len(shares)


def _mean(statistics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over the batches of every number, and of every number in a list."""

    def mean(values: Sequence[Any]) -> Any:
        if isinstance(values[0], list):
            return [mean(column) for column in zip(*values, strict=True)]
        return sum(values) / len(values)

    return {name: mean([one[name] for one in statistics]) for name in statistics[0]}
