"""`unidiff ask`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.checks import check_files, check_text
from unidiff.cli.options import (
    Decoding,
    JsonFlag,
    ModelChoice,
    TextForm,
    TextLength,
    takes_options,
)
from unidiff.cli.output import print_cost, print_json
from unidiff.cli.session import open_session

from .likelihood import choice_nats
from .task import VQA


@takes_options
def ask(
    image: Annotated[Path, typer.Argument(help="A picture of any size.", show_default=False)],
    question: Annotated[str, typer.Argument(help="What to ask about it.", show_default=False)],
    model: ModelChoice,
    decoding: Decoding,
    length: TextLength,
    form: TextForm,
    by_likelihood: Annotated[
        bool,
        typer.Option("--by-likelihood", help="Rank --choices by the model's likelihood of each."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Answer a question about a picture."""
    check_files([image])
    check_text(question, "question")
    choices = [one.strip() for one in (form.choices or "").split(",") if one.strip()]
    if by_likelihood and not choices:
        raise ValueError("--by-likelihood ranks --choices: give them, as in --choices yes,no")
    if by_likelihood and (form.regex or form.json_schema):
        raise ValueError("--by-likelihood ranks --choices: it takes no --regex or --json-schema")
    session = open_session(model)
    example = {"image": image, "question": question}
    report: dict[str, Any] = {"task": "ask", "image": image, "input": question}
    if by_likelihood:
        nats = choice_nats(VQA(), session.model, session.processor, example, choices)
        report |= {"output": choices[int(nats.argmin())]}
        report |= {"nats": dict(zip(choices, nats.round(4).tolist(), strict=True))}
    else:
        options = decoding.over(length.keywords()) | form.keywords(session.processor.tokenizer)
        (answer,) = session.ask(VQA(), [example], options)
        report |= {"output": answer.value, **answer.cost()}
    if as_json:
        print_json(report)
        return
    typer.echo(report["output"])
    if "nats" in report:
        typer.secho(f"[nats: {report['nats']}]", err=True, dim=True)
    else:
        print_cost(report)
