"""`unidiff infill-bench`: how well lines of held-out library code are filled in.

The canvas against the autoregressive reading of the same weights, and unbiased against naive
boundaries where a hole starts inside a word. Greedy everywhere; nothing runs past its line.
"""

# Shapes: N inputs.

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from unidiff.cli.options import JsonFlag, ModelChoice, takes_options
from unidiff.cli.output import print_json
from unidiff.cli.session import Session, open_session
from unidiff.evaluation.intervals import mean_interval
from unidiff.plugins import Example

from .filling import BONUS, LENGTHS, Filler
from .fim import FillInTheMiddle
from .lines import line_holes
from .metrics import edit_similarity, exact_match
from .one_line import OneLine
from .readings import LONGEST, cut_to_length, prefix_only, suffix_first

ARMS = (
    "canvas",
    "ar_prefix",
    "ar_suffix_prefix",
    "inside_unbiased",
    "inside_naive",
    "canvas_unknown_length",
)
AFTER = 24  # tokens of the suffix in a suffix-prefix-middle prompt
Answer = Callable[[Sequence[Example]], tuple[list[str], float]]


@takes_options
def infill_bench(
    model: ModelChoice,
    number: Annotated[int, typer.Option("--number", help="Holes of each kind.", min=2)] = 1000,
    unknown: Annotated[
        int, typer.Option(help="Of these, holes whose length is searched.", min=2)
    ] = 200,
    arm: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(ARMS)}; may be repeated; all by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which lines, and where holes start.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Holes decoded together.", min=1)] = 64,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure fill-in-the-middle of single lines on held-out library code."""
    chosen = tuple(arm or ARMS)
    if not set(chosen) <= set(ARMS):
        raise ValueError(f"--arm must be one of {ARMS}, got {sorted(set(chosen) - set(ARMS))}")
    session = open_session(model)
    report = measure(session, chosen, number, unknown, seed, batch_size)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
        return
    for name, one in report["arms"].items():
        low, high = one["interval"]
        typer.echo(
            f"{name:32} {one['edit_similarity']:.4f} ({low:.4f} to {high:.4f})  exact "
            f"{one['exact_match']:.4f}  {one['forwards_per_input']:.1f} forwards  "
            f"{one['num_inputs']} holes"
        )


def measure(
    session: Session,
    chosen: Sequence[str],
    number: int,
    unknown: int,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """Scores of the chosen arms, with the settings that they were measured with."""
    from unidiff.evaluation.suite import describe_environment

    lines = line_holes("test", False, seed)[:number]
    inside = line_holes("test", True, seed)[:number]
    task = FillInTheMiddle()
    arms = {}
    for name, answer, examples in _arms(session, lines, inside, unknown, batch_size):
        if name not in chosen:
            continue
        texts, forwards = answer(examples)
        arms[name] = _scores(texts, examples, forwards)
        if name.startswith("ar_"):
            cut = cut_to_length(session.processor, texts, examples)
            arms[f"{name}_cut_to_length"] = _scores(cut, examples, forwards)
    return {
        "arms": arms,
        "conditions": _conditions(arms),
        "settings": {
            "seed": seed,
            "sampler": dict(task.decoding),
            "before": task.before,
            "canvas_length": task.canvas_length,
            "ar_prompt": {"before": task.before, "after": AFTER, "max_new_tokens": LONGEST},
            "candidate_lengths": list(LENGTHS),
            "bonus": BONUS,
            "metric": "rapidfuzz Levenshtein.normalized_similarity over characters",
            "interval": "95 %, normal",
        },
        "checkpoint": session.folder.name,
        "environment": describe_environment(session.model),
    }


def _arms(
    session: Session,
    lines: Sequence[Example],
    inside: Sequence[Example],
    unknown: int,
    batch_size: int,
) -> list[tuple[str, Answer, Sequence[Example]]]:
    """(name, how it answers, inputs) of each arm."""
    model, processor = session.model, session.processor
    task = FillInTheMiddle()

    def canvas(boundary: str, lengths: Sequence[int] | None = None) -> Answer:
        options = {"logits_processor": [OneLine(processor.tokenizer)]}

        def answer(examples: Sequence[Example]) -> tuple[list[str], float]:
            task = FillInTheMiddle(boundary)
            filler = Filler(task, model, processor, options, batch_size=batch_size)
            found = filler.fill(examples, lengths)
            return [one.text for one in found], float(np.mean([one.num_forwards for one in found]))

        return answer

    def reading(read: Callable[..., list[str]], **sizes: int) -> Answer:
        def answer(examples: Sequence[Example]) -> tuple[list[str], float]:
            texts = read(
                model, processor, examples, before=task.before, batch_size=batch_size, **sizes
            )
            return texts, float(np.mean([len(processor.encoder.text(t)) + 1 for t in texts]))

        return answer

    return [
        ("canvas", canvas("unbiased"), lines),
        ("ar_prefix", reading(prefix_only), lines),
        ("ar_suffix_prefix", reading(suffix_first, after=AFTER), lines),
        ("inside_unbiased", canvas("unbiased"), inside),
        ("inside_naive", canvas("naive"), inside),
        ("canvas_unknown_length", canvas("unbiased", LENGTHS), lines[:unknown]),
    ]


def _scores(texts: list[str], examples: Sequence[Example], forwards: float) -> dict[str, Any]:
    """Means over the inputs, and the interval of the edit similarity."""
    similar_N = edit_similarity(texts, examples)
    return {
        "edit_similarity": float(similar_N.mean()),
        "interval": list(mean_interval(similar_N)),
        "exact_match": float(exact_match(texts, examples).mean()),
        "forwards_per_input": forwards,
        "num_inputs": len(texts),
    }


def _conditions(arms: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Issue 4, done when 4."""
    pairs = {
        "five_points_over_ar_prefix": ("canvas", "ar_prefix", 0.05),
        "five_points_over_ar_suffix_prefix": ("canvas", "ar_suffix_prefix", 0.05),
        "unbiased_over_naive": ("inside_unbiased", "inside_naive", 0.0),
    }
    return {
        name: arms[better]["edit_similarity"] >= arms[worse]["edit_similarity"] + margin
        and arms[better]["interval"][0] > arms[worse]["interval"][1]
        for name, (better, worse, margin) in pairs.items()
        if better in arms and worse in arms
    }
