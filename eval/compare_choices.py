"""Three ways to answer the same questions: free, by constrained canvas, by likelihood.

    python eval/compare_choices.py --per-kind 100 --out eval/results/vqa-choices.json

The choices of a question are all answers of its kind. `vqa_warmth` shows what the base says about
a skill that it was not trained on.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from unidiff_vqa.likelihood import likeliest
from unidiff_vqa.task import VQA, exact
from unidiff_vqa.warmth import Warmth

from unidiff.bundled import bundled_checkpoint
from unidiff.data.sources.scene_facts import ANSWERS, QUESTION_KINDS
from unidiff.evaluation.intervals import wilson_interval
from unidiff.evaluation.suite import describe_environment
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.plugins import Example, answer_examples
from unidiff.tokens.processor import UniDiffProcessor


def main() -> None:
    """Ask, count, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=bundled_checkpoint())
    parser.add_argument("--per-kind", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = UniDiffForBlockDiffusion.from_pretrained(
        arguments.checkpoint, dtype=torch.float32
    ).eval()
    processor = UniDiffProcessor.from_pretrained(arguments.checkpoint)
    questions = VQA().dataset("test", arguments.per_kind * len(QUESTION_KINDS))
    report: dict[str, Any] = {"environment": describe_environment(model), "seed": 0}
    groups: list[tuple[str, VQA, Sequence[Example]]] = [
        (kind, VQA(), [with_choices(one) for one in questions if one["kind"] == kind])
        for kind in QUESTION_KINDS
    ]
    groups.append(("warmth", Warmth(), Warmth().dataset("test", 2 * arguments.per_kind)))
    for name, task, examples in groups:
        report[name] = compared(task, model, processor, examples)
        print(name, json.dumps(report[name]), flush=True)
    arguments.out.write_text(json.dumps(report, indent=2, default=str) + "\n")


def with_choices(example: Example) -> Example:
    """The question with all answers of its kind to choose from."""
    return {**example, "choices": list(ANSWERS[example["kind"]])}


def compared(task: VQA, model: Any, processor: Any, examples: Sequence[Example]) -> dict[str, Any]:
    """Share of right answers, its interval, and seconds per question, of the three ways."""
    free = [{name: one[name] for name in one if name != "choices"} for one in examples]
    found: dict[str, Any] = {"num_questions": len(examples)}
    said = {}
    for way, asked in (("free", free), ("constrained", examples), ("likelihood", examples)):
        start = time.perf_counter()
        if way == "likelihood":
            said[way] = [likeliest(task, model, processor, one, one["choices"]) for one in asked]
        else:
            answers = answer_examples(task, model, processor, asked)
            said[way] = [answer.value.strip() for answer in answers]
        right = int(exact(said[way], examples).sum())
        found[way] = {
            "accuracy": right / len(examples),
            "interval": wilson_interval(right, len(examples)),
            "seconds_per_question": round((time.perf_counter() - start) / len(examples), 4),
        }
    pairs = zip(said["constrained"], said["likelihood"], strict=True)
    found["constrained_equals_likelihood"] = sum(a == b for a, b in pairs) / len(examples)
    return found


if __name__ == "__main__":
    main()
