"""What the base loses where an adapter was not trained: the suite `bundled`, with and without it.

    python eval/measure_finetunes.py --out eval/results/finetune-style.json ADAPTER [ADAPTER ...]

Each ADAPTER is a folder of `unidiff finetune`, whose own report is copied. The adapted weights are
merged, which decodes the same and takes the base's time.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from unidiff.bundled import bundled_checkpoint
from unidiff.evaluation.suite import describe_environment, run_suite
from unidiff.model.fingerprint import base_fingerprint
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.training.retain import adapters_off

SUITE = "bundled"
# metric -> inputs (of control: seeds), a few minutes a model on one CPU core
LIMITS = {
    "caption_accuracy": 500,
    "unseen_question_accuracy": 800,
    "drawn_garment_accuracy": 200,
    "drawn_scene_accuracy": 200,
    "closed_loop_success": 20,
    "text_bits_per_byte": 200,
}
NUM_ROWS, ROW_LENGTH = 8, 96  # of the comparison of logits


def main() -> None:
    """Measure the base once and each adapter, print what changed, write it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapters", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs of each metric")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    limits = {name: max(1, int(arguments.share * count)) for name, count in LIMITS.items()}
    base = load_base()
    report: dict[str, Any] = {
        "base_fingerprint": base_fingerprint(base),
        "environment": describe_environment(base),
        "seed": arguments.seed,
        "limits": limits,
        "base": measured(base, limits, arguments.seed),
        "adapters": [],
    }
    for folder in arguments.adapters:
        print(folder.name, flush=True)
        one = measured_adapter(folder, limits, arguments.seed)
        one["change"] = changes(report["base"], one["suite"])
        print(json.dumps(one["change"], indent=2), flush=True)
        report["adapters"].append(one)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2, default=str) + "\n")


def load_base() -> UniDiffForBlockDiffusion:
    """The bundled checkpoint in float32."""
    return UniDiffForBlockDiffusion.from_pretrained(
        bundled_checkpoint(), dtype=torch.float32
    ).eval()


def measured_adapter(folder: Path, limits: dict[str, int], seed: int) -> dict[str, Any]:
    """Its own report, whether the base is unchanged with it off, and the suite with it on."""
    model = load_base()
    before = some_logits(model)
    model.load_adapter(folder)
    after = some_logits(model)
    with adapters_off(model):
        is_identical = torch.equal(some_logits(model), before)
    own = json.loads((folder / "finetune.json").read_text())
    return {
        "name": folder.name,
        "finetune": own,
        "off_is_bit_identical": is_identical,
        "largest_change_of_a_logit": float((after - before).abs().max()),
        "suite": measured(model.merge_and_unload(), limits, seed),
    }


@torch.inference_mode()
def some_logits(model: UniDiffForBlockDiffusion) -> torch.Tensor:
    """Logits of a few rows of text ids."""
    ids = torch.arange(NUM_ROWS * ROW_LENGTH).reshape(NUM_ROWS, ROW_LENGTH) * 7 % 1000 + 100
    return model(ids).logits


def measured(model: Any, limits: dict[str, int], seed: int) -> dict[str, Any]:
    """Value, interval and parts of each metric of the suite."""
    processor = UniDiffProcessor.from_pretrained(bundled_checkpoint())
    found = {}
    for name, limit in limits.items():
        start = time.perf_counter()
        (report,) = run_suite(
            SUITE, model, processor, seed=seed, limit=limit, metrics=[name]
        ).metrics
        one = report.measurement
        found[name] = {
            "value": one.value,
            "interval": one.interval,
            "num_inputs": one.num_inputs,
            "by_kind": {
                kind: part["accuracy"] for kind, part in one.details.get("by_kind", {}).items()
            },
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(name, one.value, found[name]["by_kind"], found[name]["seconds"], flush=True)
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Points won (or lost, negative) of each share; of bits per byte, those added."""
    found: dict[str, Any] = {}
    for name, one in before.items():
        is_share = name != "text_bits_per_byte"
        scale = 100 if is_share else 1
        found[name] = round(scale * (after[name]["value"] - one["value"]), 3)
        for kind, value in one["by_kind"].items():
            found[f"{name}/{kind}"] = round(100 * (after[name]["by_kind"][kind] - value), 1)
    return found


if __name__ == "__main__":
    main()
