"""`unidiff caption`."""

from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.checks import check_files
from unidiff.cli.options import Decoding, JsonFlag, ModelChoice, TextLength, takes_options
from unidiff.cli.output import print_cost, print_json
from unidiff.cli.session import open_session

from .task import DESCRIBE, Captioning


@takes_options
def caption(
    images: Annotated[list[Path], typer.Argument(help="Pictures of any size.", show_default=False)],
    model: ModelChoice,
    decoding: Decoding,
    length: TextLength,
    prompt: Annotated[str, typer.Option(help="What the user says.")] = DESCRIBE,
    as_json: JsonFlag = False,
) -> None:
    """Describe pictures."""
    check_files(images)
    session = open_session(model)
    examples = [{"image": image, "prompt": prompt} for image in images]
    answers = session.ask(Captioning(), examples, decoding.over(length.keywords()))
    reports = [
        {"image": str(path), "output": answer.value, **answer.cost()}
        for path, answer in zip(images, answers, strict=True)
    ]
    if as_json:
        print_json({"task": "caption", "results": reports})
        return
    for report in reports:
        prefix = f"{report['image']}: " if len(reports) > 1 else ""
        typer.echo(prefix + report["output"])
        print_cost(report)
