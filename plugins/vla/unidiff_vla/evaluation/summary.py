"""Numbers of driven episodes: success with intervals, cost, and two policies compared in pairs."""

# Shapes: N episodes.

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from unidiff.evaluation.intervals import paired_difference, wilson_interval
from unidiff_vla.driving import EpisodeRecord

from .measuring import Results


def success_of(episodes: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Success of some episodes with its Wilson interval; one that broke off did not succeed."""
    number = sum(one.success for one in episodes)
    return {
        "success": number / len(episodes),
        "interval": list(wilson_interval(number, len(episodes))),
        "num_episodes": len(episodes),
        "num_errors": sum(one.error is not None for one in episodes),
        "mean_steps": float(np.mean([one.num_steps for one in episodes])),
    }


def success_by_task(
    results: Results, envs: Sequence[str], wordings: Sequence[str]
) -> dict[str, Any]:
    """Wording -> mean over tasks, and each task's own."""
    found = {}
    for wording in wordings:
        tasks = {env: success_of(results.episodes(env=env, wording=wording)) for env in envs}
        mean = float(np.mean([one["success"] for one in tasks.values()]))
        found[wording] = {"mean_success": mean, "tasks": tasks}
    return found


def cost_of(results: Results) -> dict[str, Any]:
    """Forwards and milliseconds of a chunk.

    `latency_ms` is what one robot waits for; `batched_ms` a chunk's share where episodes were
    driven side by side.
    """
    episodes = results.episodes()
    plans = sum(one.num_plans for one in episodes)
    milliseconds = 1e3 * np.array(results.latencies)
    return {
        "num_chunks": plans,
        "forwards_per_chunk": sum(one.num_forwards for one in episodes) / max(1, plans),
        "latency_ms": {
            "median": float(np.median(milliseconds)),
            "p95": float(np.quantile(milliseconds, 0.95)),
            "num_timed": len(milliseconds),
        },
        "batched_ms": 1e3 * sum(one.seconds for one in episodes) / max(1, plans),
    }


def compare(ours: Sequence[EpisodeRecord], others: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Difference of success of two policies on the same layouts, ours less the others'.

    Args:
        ours: N episodes.
        others: N episodes with the same layouts in the same order.

    Returns:
        `difference`, its one-sided 95 % `lower_bound`, `num_pairs`, and both means.

    Raises:
        ValueError: if the layouts differ, or there are none.
    """
    if [one.seed for one in ours] != [one.seed for one in others]:
        raise ValueError(
            f"two policies are compared on the same layouts; got {len(ours)} and {len(others)} "
            "episodes with other seeds"
        )
    scores, reference = (np.array([one.success for one in some], float) for some in (ours, others))
    found = paired_difference(scores, reference)
    return {
        "difference": found.mean,
        "lower_bound": found.lower_bound,
        "num_pairs": found.num_inputs,
        "success": float(scores.mean()),
        "reference_success": float(reference.mean()),
    }


def errors_of(results: Results) -> list[dict[str, Any]]:
    """Episodes that broke off, and why."""
    return [
        {"env": cell.env, "wording": cell.wording, **asdict(episode)}
        for cell, episodes in results.cells
        for episode in episodes
        if episode.error is not None
    ]


def success_table(report: Mapping[str, Any]) -> str:
    """Markdown of a report: a line for each task, and what it cost."""
    wordings = list(report["success"])
    lines = [f"| task | {' | '.join(wordings)} |", "|---" * (len(wordings) + 1) + "|"]
    for env in report["envs"]:
        cells = [_shown(report["success"][one]["tasks"][env]) for one in wordings]
        lines.append(f"| {env} | {' | '.join(cells)} |")
    means = [f"{report['success'][one]['mean_success']:.3f}" for one in wordings]
    lines += [f"| mean | {' | '.join(means)} |", ""]
    cost, latency = report["cost"], report["cost"]["latency_ms"]
    lines.append(
        f"Success (95 % interval), {report['num_episodes']} {report['split']} layouts of each task "
        f"for each of the seeds {report['seeds']}; {cost['forwards_per_chunk']:.2f} forwards and "
        f"{latency['median']:.1f} ms (p95 {latency['p95']:.1f}) a chunk, of which "
        f"{report['num_executed']} actions are carried out; decoding {report['decoding']}; weights "
        f"{report['fingerprint']}."
    )
    if "comparison" in report:
        lines += ["", _comparison(report["comparison"])]
    if "repair" in report:
        lines += ["", _repair(report["repair"])]
    if report["errors"]:
        lines += ["", f"{len(report['errors'])} episodes broke off; the first: {_first(report)}"]
    return "\n".join(lines) + "\n"


def _shown(task: Mapping[str, Any]) -> str:
    low, high = task["interval"]
    return f"{task['success']:.3f} ({low:.3f} to {high:.3f})"


def _comparison(found: Mapping[str, Any]) -> str:
    cost, other = found["cost"], found["checkpoint"] or "itself"
    return (
        f"Against {other}, {found['decoding']} ({cost['forwards_per_chunk']:.2f} forwards, "
        f"{cost['latency_ms']['median']:.1f} ms a chunk): success {found['success']:.3f} and "
        f"{found['reference_success']:.3f}, difference {found['difference']:+.3f}, one-sided 95 % "
        f"lower bound {found['lower_bound']:+.3f}, {found['num_pairs']} pairs; latency "
        f"{found['latency_ratio']:.2f} times the reference's."
    )


def _repair(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return (
        f"{found['num_planted_of_chunk']} wrong tokens planted in each of {found['num_chunks']} "
        f"chunks: {found['repaired']:.3f} ({low:.3f} to {high:.3f}) repaired, their mean distance "
        f"from what was planned {found['distance_before']:.3f} of the range before and "
        f"{found['distance_after']:.3f} after; of the right tokens "
        f"{found['right_tokens_changed']:.3f} changed, by {found['right_tokens_distance']:.3f} in "
        "the mean of all."
    )


def _first(report: Mapping[str, Any]) -> str:
    one = report["errors"][0]
    return f"{one['env']}, layout {one['seed']}, {one['error']}"
