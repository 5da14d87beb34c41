"""`unidiff bench memory`: what decoding takes above weights and cache, in a fresh process each."""

import json
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

from .decode_setup import load_benchmark, load_goals
from .load_guard import describe_machine
from .suite import describe_environment

MEGABYTE = 10**6


def memory_modes() -> list[str]:
    """Names of the decoding modes that are measured."""
    return list(load_benchmark("memory")["modes"])


def run_memory_benchmark(
    preset: str = "standard",
    *,
    only: Collection[str] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The report: transient megabytes (10^6 bytes) of each mode beside their goals.

    Args:
        preset: "standard" or "tiny".
        only: modes; None: all.
        seed: of weights, prompts and sampling.
        progress: called with each mode before it is measured.
        changes: settings that differ from the preset's; None keeps the preset's.

    Raises:
        ValueError: if a mode or setting is unknown, or the process failed.
    """
    definition, goals = load_benchmark("memory"), load_goals("memory")
    modes = definition["modes"]
    unknown = sorted(set(only or ()) - set(modes))
    if unknown:
        raise ValueError(f"unknown modes {unknown}; they are {sorted(modes)}")
    settings = dict(definition["presets"][preset])
    given = {name: value for name, value in changes.items() if value is not None}
    if set(given) - set(settings):
        raise ValueError(f"settings must be among {sorted(settings)}, got {sorted(given)}")
    settings |= {**given, "seed": seed}
    found = {}
    for mode, options in modes.items():
        if only and mode not in only:
            continue
        if progress is not None:
            progress(mode)
        measured = probe(settings, options)
        goal, value = goals[mode], measured["transient_bytes"] / MEGABYTE
        found[mode] = {
            "transient_megabytes": value,
            **asdict(goal),
            "passes": goal.is_met(value, goal.floor),
            "reaches_aim": goal.is_met(value, goal.aim),
            "options": options,
            **measured,
        }
    versions = describe_environment(None)
    return {
        "benchmark": "memory",
        "passes": all(one["passes"] for one in found.values()),
        "setup": settings,
        "environment": {n: versions[n] for n in ("unidiff", "torch", "transformers")}
        | describe_machine(),
        "modes": found,
    }


def probe(settings: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What `memory_probe.measure` found in a process of its own.

    Raises:
        ValueError: if the process failed, with the last line it wrote.
    """
    request = json.dumps({"settings": settings, "options": options})
    command = [sys.executable, "-m", "unidiff.evaluation.memory_probe", request]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"the measuring process ended with code {result.returncode}: {last}")
    measured: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return measured
