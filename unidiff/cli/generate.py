"""`unidiff generate`: continue a text."""

import sys
from typing import Annotated, Any

import typer

from . import samplers
from .options import Decoding, JsonFlag, ModelChoice, TextForm, TextLength, takes_options
from .output import print_cost, print_json
from .session import Session, open_session


@takes_options
def generate(
    text: Annotated[str, typer.Argument(help="Text to continue; - reads stdin.")],
    model: ModelChoice,
    decoding: Decoding,
    length: TextLength,
    form: TextForm,
    stream: Annotated[bool, typer.Option(help="Show drafts while they change.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Continue a text."""
    text = sys.stdin.read() if text == "-" else text
    session = open_session(model)
    options = decoding.over({**samplers.completing(session.model), **length.keywords()})
    options |= form.keywords(session.processor.tokenizer)
    if stream and not as_json:
        options["streamer"] = drafts(session)
    answer = session.answer(session.processor.for_completion(text), options)[0]
    if as_json:
        print_json({"task": "generate", "input": text, "output": answer.value, **answer.cost()})
        return
    if not stream:
        typer.echo(text + answer.value)
    print_cost(answer.cost())


def drafts(session: Session) -> Any:
    """The streamer of transformers that shows unfinished text in yellow."""
    from transformers import TextDiffusionStreamer

    return TextDiffusionStreamer(
        session.processor.tokenizer,
        skip_prompt=True,
        sleep_time=0.03,
        skip_special_tokens=True,
    )
