"""What `unidiff eval vla` does."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np

from unidiff.cli.options import ModelChoice
from unidiff.evaluation.suite import describe_environment
from unidiff.model.fingerprint import weights_key
from unidiff.plugins import EvaluationReport, EvaluationRequest
from unidiff_vla.driving import View
from unidiff_vla.environments import find_environment
from unidiff_vla.loading import LoadedPolicy, check_same_actions, environment_for, policy_for
from unidiff_vla.policy import (
    ChunkPolicy,
    MaskedDiffusionPolicy,
    PolicySettings,
    RegressionPolicy,
)

from .cells import Cell, CellFolder, layouts_of
from .measuring import Driver, MakeEnv, Results, measure_cells
from .plan import SETTINGS, EvaluationPlan, reference_decoding
from .repairing import check_plantable, plant_and_mend
from .summary import compare, cost_of, errors_of, success_by_task, success_table

__all__ = ["SETTINGS", "measure"]

REPAIRED_LAYOUTS = 10  # of each task


@dataclass(frozen=True)
class _Measured:
    """Episodes of one policy, what they cost, and the fingerprint of the policy."""

    results: Results
    cost: dict[str, Any]
    fingerprint: str


def measure(request: EvaluationRequest) -> EvaluationReport:
    """Drive every cell of the request, or read it where it was driven before.

    Raises:
        ValueError: if a setting, the checkpoint or an environment does not fit.
        ImportError: if a simulator is not installed.
    """
    plan = EvaluationPlan.of(request)
    choice = ModelChoice(request.checkpoint, request.device)
    loaded = policy_for(plan.envs[0], choice, partial(_changed, plan=plan))
    if isinstance(loaded.policy, RegressionPolicy) and (plan.decoding or plan.reference):
        raise ValueError(
            "regression plans in one forward and decodes nothing: leave out decoding and reference"
        )
    other = _other(loaded.policy, plan, request)
    if plan.planted:
        check_plantable(loaded.policy, plan.planted)
    measured = _measured(loaded.policy, plan, plan.wordings, request, "vla")
    report = _report(loaded, plan, measured)
    if other is not None:
        report["comparison"] = _comparison(other, plan, measured, request)
    if plan.planted:
        report["repair"] = _repair(loaded.policy, plan)
    broken = [*report["errors"], *report.get("comparison", {}).get("errors", [])]
    problem = f"{len(broken)} episodes broke off and count as failures" if broken else None
    return EvaluationReport(report, success_table(report), problem)


def policy_key(policy: ChunkPolicy) -> str:
    """Hexadecimal fingerprint of what decides a policy's plans besides its settings.

    Weights, and how its processor reads and writes: bins, words, image tokenizer.
    """
    processor, digest = policy.processor, blake2b(digest_size=8)
    digest.update(weights_key(policy.model).encode())
    if "image" in processor.layout.ranges:
        digest.update(weights_key(processor.image_tokenizer).encode())
    digest.update(json.dumps(processor.to_dict(), sort_keys=True, default=str).encode())
    digest.update(processor.tokenizer.backend_tokenizer.to_str().encode())
    return digest.hexdigest()


def _changed(settings: PolicySettings, plan: EvaluationPlan) -> PolicySettings:
    """The checkpoint's settings with the plan's."""
    return replace(
        settings,
        decoding={**settings.decoding, **plan.decoding},
        replan_every=(settings.replan_every if plan.replan_every is None else plan.replan_every),
        foresees=settings.foresees if plan.foresees is None else plan.foresees,
    )


def _measured(
    policy: ChunkPolicy,
    plan: EvaluationPlan,
    wordings: tuple[str, ...],
    request: EvaluationRequest,
    label: str,
) -> _Measured:
    """Episodes of all cells, task by task."""
    key = policy_key(policy)
    shared = (plan.num_episodes, plan.split, key)
    settings = json.loads(json.dumps(asdict(policy.settings)))
    cells = [
        Cell(env, wording, seed, *shared, settings)
        for env in plan.envs
        for wording in wordings
        for seed in plan.seeds
    ]
    driver = Driver(
        policy,
        View.of(policy),
        plan.parallel,
        _maker(policy),
        partial(check_same_actions, policy),
    )
    folder, progress = CellFolder(request.cells), request.progress
    results = measure_cells(driver, cells, folder, progress, label)
    return _Measured(results, cost_of(results), key)


def _maker(policy: ChunkPolicy) -> MakeEnv:
    """Makes environments that show what a policy sees."""
    return lambda name, split: environment_for(policy, find_environment(name), split)


def _report(loaded: LoadedPolicy, plan: EvaluationPlan, measured: _Measured) -> dict[str, Any]:
    """Everything that was found, and how."""
    policy = loaded.policy
    success = success_by_task(measured.results, plan.envs, plan.wordings)
    return {
        "task": "vla",
        "mean_success": success[plan.wordings[0]]["mean_success"],
        "wording": plan.wordings[0],
        "success": success,
        "cost": measured.cost,
        "errors": errors_of(measured.results),
        "envs": list(plan.envs),
        "split": plan.split,
        "seeds": list(plan.seeds),
        "num_episodes": plan.num_episodes,
        "num_executed": policy.num_executed,
        "chunk": [policy.horizon, policy.dof],
        "decoding": dict(policy.settings.decoding),
        "settings": asdict(policy.settings),
        "checkpoint": str(loaded.folder),
        "fingerprint": measured.fingerprint,
        "environment": describe_environment(policy.model),
    }


def _comparison(
    other: ChunkPolicy,
    plan: EvaluationPlan,
    measured: _Measured,
    request: EvaluationRequest,
) -> Mapping[str, Any]:
    """The other policy's episodes on the layouts of the first wording; the paired difference."""
    wording = plan.wordings[0]
    reference = _measured(other, plan, (wording,), request, "the reference")
    pairs = compare(
        measured.results.episodes(wording=wording), reference.results.episodes(wording=wording)
    )
    ratio = measured.cost["latency_ms"]["median"] / reference.cost["latency_ms"]["median"]
    return {
        **pairs,
        "wording": wording,
        "checkpoint": None if plan.baseline is None else str(plan.baseline),
        "decoding": dict(other.settings.decoding),
        "cost": reference.cost,
        "latency_ratio": ratio,
        "errors": errors_of(reference.results),
    }


def _other(
    policy: ChunkPolicy, plan: EvaluationPlan, request: EvaluationRequest
) -> ChunkPolicy | None:
    """The policy to compare with: another checkpoint, the same one decoded otherwise, or none."""
    if plan.baseline is not None:
        choice = ModelChoice(plan.baseline, request.device)
        return policy_for(plan.envs[0], choice).policy
    if plan.reference is None:
        return None
    decoding = reference_decoding(plan.reference, policy.settings.decoding)
    settings = replace(policy.settings, decoding=decoding, warm_start=None)
    return type(policy)(policy.model, policy.processor, settings)


def _repair(policy: ChunkPolicy, plan: EvaluationPlan) -> Mapping[str, Any]:
    """What secondary remasking makes of planted tokens, on the first seed's first layouts."""
    assert isinstance(policy, MaskedDiffusionPolicy)
    make_env = _maker(policy)
    envs = [make_env(name, plan.split) for name in plan.envs]
    seed = plan.seeds[0]
    layouts = layouts_of(seed, plan.num_episodes)[:REPAIRED_LAYOUTS]
    try:
        planted = plant_and_mend(policy, envs, layouts, plan.planted, seed)
    finally:
        for env in envs:
            env.close()
    width = np.array(policy.bins.high) - np.array(policy.bins.low)
    return {"num_planted_of_chunk": plan.planted, **planted.report(width)}
