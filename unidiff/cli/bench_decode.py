"""`unidiff bench decode` and `unidiff bench memory`: our decoder against its peers, its memory."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonFlag, takes_options
from .output import print_json

_SIZE = "Size"
_MEASURING = "Measuring"


@dataclass(frozen=True)
class DecodeSize:
    """What is decoded; an option left out keeps the preset's value."""

    tiny: Annotated[
        bool, typer.Option("--tiny", help="A model of 20 k parameters.", rich_help_panel=_SIZE)
    ] = False
    prompt_tokens: Annotated[
        int | None, typer.Option(help="Length of the prompt.", rich_help_panel=_SIZE)
    ] = None
    new_tokens: Annotated[
        int | None, typer.Option(help="Tokens generated.", rich_help_panel=_SIZE)
    ] = None
    block_length: Annotated[
        int | None, typer.Option(help="Tokens denoised together.", rich_help_panel=_SIZE)
    ] = None
    steps: Annotated[
        list[int] | None,
        typer.Option(help="Forwards per block; may be repeated.", rich_help_panel=_SIZE),
    ] = None
    batch: Annotated[
        list[int] | None, typer.Option(help="Rows; may be repeated.", rich_help_panel=_SIZE)
    ] = None
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16 or float32.", rich_help_panel=_SIZE)
    ] = None
    threads: Annotated[int | None, typer.Option(help="Of torch.", rich_help_panel=_SIZE)] = None
    seed: Annotated[int, typer.Option(help="Of weights and prompts.", rich_help_panel=_SIZE)] = 0

    @property
    def preset(self) -> str:
        """Name of the preset that these options change."""
        return "tiny" if self.tiny else "standard"


@dataclass(frozen=True)
class Measuring:
    """How long and how carefully to measure."""

    rounds: Annotated[
        int,
        typer.Option(help="Pairs of each ratio on a calm machine.", rich_help_panel=_MEASURING),
    ] = 5
    max_rounds: Annotated[
        int | None,
        typer.Option(
            help="Stop then, calm or not; twice --rounds by default.", rich_help_panel=_MEASURING
        ),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(help="This ratio or decoder; may be repeated.", rich_help_panel=_MEASURING),
    ] = None
    patience: Annotated[
        float,
        typer.Option(
            help="Seconds to wait for a calm moment before each timing.",
            rich_help_panel=_MEASURING,
        ),
    ] = 5.0
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --out.", rich_help_panel=_MEASURING)
    ] = False


@takes_options
def bench_decode(
    size: DecodeSize,
    measuring: Measuring,
    prepack: Annotated[
        bool, typer.Option(help="Run our model on prepacked weights, where there are.")
    ] = True,
    attention: Annotated[str | None, typer.Option(help="Our model's attention function.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for decode.json, after each round, and decode.png.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tokens per second of our decoder and its peers, as ratios within one run."""
    from unidiff.evaluation.decode_benchmark import Schedule, run_decode_benchmark
    from unidiff.evaluation.decode_setup import DecodeSetup
    from unidiff.evaluation.load_guard import LoadGuard

    setup = DecodeSetup.preset(
        size.preset,
        prompt_tokens=size.prompt_tokens,
        new_tokens=size.new_tokens,
        block_length=size.block_length,
        steps=size.steps or None,
        batches=size.batch or None,
        dtype=size.dtype,
        threads=size.threads,
        seed=size.seed,
        prepacks_weights=prepack,
        attention=attention,
    )
    schedule = Schedule(measuring.rounds, measuring.max_rounds, tuple(measuring.only or ()) or None)
    with _spinner() as spinner:
        task = spinner.add_task("building the models", total=None)

        def show(done: int, name: str) -> None:
            _tell(spinner, task, f"round {done + 1}: {name}")

        try:
            report = run_decode_benchmark(
                setup,
                schedule,
                guard=LoadGuard(patience=measuring.patience),
                out=out,
                resumes=measuring.resume,
                progress=show,
            )
        except KeyboardInterrupt as stop:
            _show_decode(stop.args[0] if stop.args else {}, out, as_json)
            raise
    _show_decode(report, out, as_json)


@takes_options
def bench_memory(
    tiny: Annotated[bool, typer.Option("--tiny", help="A small vocabulary.")] = False,
    vocabulary: Annotated[int | None, typer.Option(help="Ids.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows.")] = None,
    block_length: Annotated[int | None, typer.Option(help="Tokens of a canvas.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="Length of the prompt.")] = None,
    new_tokens: Annotated[int | None, typer.Option(help="Tokens generated.")] = None,
    steps: Annotated[int | None, typer.Option(help="Forwards per block.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="greedy or sampled.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, prompts and sampling.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for memory.json.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Memory that decoding takes above weights and cache."""
    from unidiff.evaluation.memory_benchmark import run_memory_benchmark

    with _spinner() as spinner:
        task = spinner.add_task("starting", total=None)
        report = run_memory_benchmark(
            "tiny" if tiny else "standard",
            only=only or None,
            seed=seed,
            progress=lambda mode: _tell(spinner, task, mode),
            vocab_size=vocabulary,
            batch=batch,
            block_length=block_length,
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            steps=steps,
            dtype=dtype,
            threads=threads,
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "memory.json").write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
    else:
        _print_numbers("mode", report["modes"], "transient_megabytes")


def _show_decode(report: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Print the report; draw it into `out`."""
    from unidiff.evaluation.decode_plot import draw_decode_report

    if not report.get("num_rounds"):
        return
    if out is not None:
        draw_decode_report(report, out / "decode.png")
    if as_json:
        print_json(report)
        return
    _print_numbers("ratio", report["ratios"], "value")
    _print_speeds(report["contestants"])


def _print_numbers(title: str, numbers: dict[str, Any], key: str) -> None:
    """Numbers with their goals as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title, "value", "floor", "aim", "calm pairs", "")
    for name, one in numbers.items():
        mark = Text("")
        if "passes" in one:
            mark = Text("aim met", "green") if one["reaches_aim"] else Text("passes", "yellow")
            mark = mark if one["passes"] else Text("below the floor", "red")
        shown = [one.get(column) for column in (key, "floor", "aim", "num_calm")]
        table.add_row(name, *("" if n is None else f"{n:.4g}" for n in shown), mark)
    Console().print(table)


def _print_speeds(contestants: dict[str, Any]) -> None:
    """Tokens per second as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("decoder", "tokens/s", "with prefill", "forwards", "parameters")
    for name, one in contestants.items():
        keys = ("tokens_per_second", "end_to_end_tokens_per_second", "num_forwards")
        shown = [f"{one[key]:.4g}" for key in keys]
        table.add_row(name, *shown, f"{one['num_parameters'] / 1e6:.1f} M")
    Console().print(table)


def _tell(spinner: Any, task: Any, what: str) -> None:
    """Say what is being measured; in a log, a line of its own."""
    spinner.update(task, description=what)
    if not spinner.console.is_terminal:
        typer.echo(what, err=True)


def _spinner() -> Any:
    """A line on stderr that says what is being measured, and for how long."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        refresh_per_second=1,  # a display that works is a load
    )
