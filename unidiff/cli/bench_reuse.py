"""`unidiff bench reuse`: approximate cache reuse against none, on full-attention weights."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonFlag, takes_options
from .output import print_json
from .session import quiet_transformers


@dataclass(frozen=True)
class ReuseSettings:
    """Sizes of the run; `unidiff.evaluation.reuse_bench.ReuseBenchmark` takes them as they are."""

    rounds: Annotated[int, typer.Option(help="Timed batches; kinds take turns.", min=1)] = 5
    batch_size: Annotated[int, typer.Option(help="Prompts of a batch.", min=1)] = 1
    prompt_length: Annotated[int, typer.Option(help="Tokens of a prompt.", min=2)] = 64
    new_tokens: Annotated[int, typer.Option(help="Tokens of a response.", min=1)] = 512
    block_length: Annotated[int, typer.Option(help="Tokens of a block.", min=1)] = 32
    steps: Annotated[int, typer.Option(help="Forwards for each block.", min=1)] = 8
    temperature: Annotated[float, typer.Option(help="Of the draws; 0 is greedy.", min=0)] = 1.0
    gamma: Annotated[float, typer.Option(help="reuse_gamma of elastic.")] = 0.9
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32"
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1
    seed: Annotated[int, typer.Option(help="Of decoding.")] = 0


@takes_options
def bench_reuse(
    checkpoint: Annotated[Path, typer.Option(help="Folder of full-attention weights.")],
    settings: ReuseSettings,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="Only this kind; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON here, a PNG beside it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure each approximate kind of cache_reuse: speed, agreement, quality."""
    from unidiff.evaluation.reuse_bench import ReuseBenchmark, run_reuse_benchmark
    from unidiff.evaluation.reuse_plot import draw_reuse
    from unidiff.generation.options import APPROXIMATE_CACHE_REUSES

    if not (checkpoint / "config.json").is_file():
        raise FileNotFoundError(f"{checkpoint} holds no config.json: it is no checkpoint")
    quiet_transformers()
    report = run_reuse_benchmark(
        checkpoint,
        ReuseBenchmark(**vars(settings)),
        kinds or APPROXIMATE_CACHE_REUSES,
        lambda kind, done, total: typer.echo(f"{kind}: batch {done + 1} of {total}", err=True),
    )
    report = {"command": "unidiff " + " ".join(sys.argv[1:]), **report}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
        draw_reuse(report, out.with_suffix(".png"))
    if as_json:
        print_json(report)
    else:
        _print_table(report)


def _print_table(report: Mapping[str, Any]) -> None:
    """The kinds as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "speed", "CPU speed", "equal tokens", "judge, nats", "pairs", "computed")
    for name, one in report["kinds"].items():
        numbers = (
            one["speed_over_none"]["median_of_pairs"],
            one["cpu_speed_over_none"]["median_of_pairs"],
            one["agreement"]["equal_tokens"],
            one["judge_nats_per_token"],
            one["distinct_pairs"],
            one.get("reuse", {}).get("share_computed", 1.0),
        )
        table.add_row(name, *(f"{number:.3f}" for number in numbers))
    Console().print(table)
