"""`unidiff bench speculation`: what self-speculation saves over `ar`, in seconds and forwards."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonFlag, ModelChoice, takes_options
from .output import print_json
from .session import open_session


@takes_options
def bench_speculation(
    model: ModelChoice,
    prompts: Annotated[int, typer.Option(help="Held-out stretches of text.", min=1)] = 16,
    prompt_tokens: Annotated[int, typer.Option(help="Length of each.", min=8)] = 64,
    new_tokens: Annotated[int, typer.Option(help="Tokens generated.", min=4)] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0.0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of prompts, sampling and random weights.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Self-speculation against own `ar`, with the checkpoint's weights and with random ones."""
    import json

    from unidiff.evaluation.speculation_benchmark import SpeculationSettings, measure_speculation

    session = open_session(model)
    settings = SpeculationSettings(prompts, prompt_tokens, new_tokens, temperature, seed)
    report = measure_speculation(session.model, session.processor.tokenizer, settings)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
        return
    for name, modes in report["weights"].items():
        for mode, one in modes.items():
            typer.echo(f"{name:8} {mode:28} {_shown(one)}")


def _shown(one: dict[str, Any]) -> str:
    """One contestant's numbers in a line."""
    return (
        f"{one['ratio_to_ar']:.2f} x ar, {one['tokens_per_forward']:.2f} tokens per forward, "
        f"{one['ms_per_forward']:.1f} ms each"
    )
