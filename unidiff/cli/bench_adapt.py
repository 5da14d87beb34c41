"""`unidiff bench adapt`: an AR model adapted to block diffusion against the same from nothing."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonFlag, takes_options
from .output import print_json
from .session import quiet_transformers

_MODEL, _RUNS, _MEASURED = "Model", "Runs", "Measured"


@dataclass(frozen=True)
class ExperimentSizes:
    """Sizes, as `unidiff.training.adaptation_experiment.AdaptationExperiment` takes them."""

    hidden_size: Annotated[int, typer.Option(help="Width.", rich_help_panel=_MODEL)] = 128
    num_layers: Annotated[int, typer.Option(help="Depth.", rich_help_panel=_MODEL)] = 4
    intermediate_size: Annotated[int, typer.Option(help="MLP width.", rich_help_panel=_MODEL)] = 384
    order: Annotated[
        str, typer.Option(help="Digits of a sum: least_first, most_first.", rich_help_panel=_RUNS)
    ] = "least_first"
    num_sums: Annotated[int, typer.Option(help="Training sums.", rich_help_panel=_RUNS)] = 50_000
    sums: Annotated[int, typer.Option(help="Sums of a step.", rich_help_panel=_RUNS)] = 112
    windows: Annotated[int, typer.Option(help="Texts of a step.", rich_help_panel=_RUNS)] = 16
    length: Annotated[int, typer.Option(help="Tokens of a text.", rich_help_panel=_RUNS)] = 96
    max_documents: Annotated[
        int | None, typer.Option(help="Documents of the library.", rich_help_panel=_RUNS)
    ] = None
    source_steps: Annotated[
        int, typer.Option(help="Steps of the AR model.", rich_help_panel=_RUNS)
    ] = 1500
    steps: Annotated[int, typer.Option(help="Steps of the other two.", rich_help_panel=_RUNS)] = 200
    recipe: Annotated[
        str, typer.Option(help="causal, fast-dllm or sdar.", rich_help_panel=_RUNS)
    ] = "causal"
    block_length: Annotated[int, typer.Option(help="Tokens of a block.", rich_help_panel=_RUNS)] = 8
    source_rate: Annotated[
        float, typer.Option(help="Peak rate from fresh weights.", rich_help_panel=_RUNS)
    ] = 4e-3
    rate: Annotated[
        float, typer.Option(help="Peak rate of the adaptation.", rich_help_panel=_RUNS)
    ] = 2e-3
    micro_batch: Annotated[
        int, typer.Option(help="Samples of a forward.", rich_help_panel=_RUNS)
    ] = 16
    save_steps: Annotated[int, typer.Option(help="Steps between saves.", rich_help_panel=_RUNS)] = (
        50
    )
    seed: Annotated[int, typer.Option(help="Of everything.", rich_help_panel=_RUNS)] = 0


@dataclass(frozen=True)
class MeasuredSizes:
    """How much is measured, beside what the runs decide."""

    measured_sums: Annotated[
        int, typer.Option(help="Held-out sums.", min=1, rich_help_panel=_MEASURED)
    ] = 1000
    measured_windows: Annotated[
        int, typer.Option(help="Held-out texts.", min=1, rich_help_panel=_MEASURED)
    ] = 128


@takes_options
def bench_adapt(
    out: Annotated[Path, typer.Option(help="Folder of data, runs and checkpoints; it resumes.")],
    sizes: ExperimentSizes,
    measured: MeasuredSizes,
    report_path: Annotated[
        Path | None,
        typer.Option("--report", help="JSON to write, a PNG beside it; OUT/adapt.json by default."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train an AR model, adapt it, train the same from nothing, compare; the command goes on."""
    from unidiff.evaluation.adaptation import AdaptationMeasurement, measure_adaptation
    from unidiff.evaluation.adaptation_plot import draw_adaptation
    from unidiff.training.adaptation_experiment import AdaptationExperiment, Experiment

    quiet_transformers()
    settings = AdaptationExperiment(**vars(sizes))
    begin = time.perf_counter()
    folders = Experiment(out, settings).run()
    trained = time.perf_counter()
    measurement = AdaptationMeasurement(
        num_choosing=max(1, 3 * measured.measured_sums // 10),
        num_sums=measured.measured_sums,
        num_windows=measured.measured_windows,
        order=settings.order,
        block_length=settings.block_length,
        length=settings.length,
        seed=settings.seed,
    )
    report = {
        "command": "unidiff " + " ".join(sys.argv[1:]),
        "settings": asdict(settings),
        "measurement": asdict(measurement),
        **measure_adaptation(folders, measurement),
        "seconds_of_this_call": {
            "runs": round(trained - begin, 1),
            "measurement": round(time.perf_counter() - trained, 1),
        },
    }
    path = report_path or out / "adapt.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    draw_adaptation(report, folders, path.with_suffix(".png"))
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    """The three models and the aims, for people."""
    for name in ("source", "adapted", "scratch"):
        sums, bits = report[name]["sums"], report[name]["bits_per_byte"]["value"]
        typer.echo(
            f"{name:8} {sums['exact']:.3f} of the sums, {sums['tokens_per_forward']:.2f} tokens "
            f"per forward, {bits:.3f} bits per byte"
        )
    for aim, is_met in report["aims"].items():
        typer.echo(f"{'yes' if is_met else 'no ':3} {aim}")
