"""`unidiff generate`: continue a text, or answer a question about pictures."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import samplers
from .checks import check_files
from .options import Decoding, JsonFlag, ModelChoice, TextForm, TextLength, takes_options
from .output import print_cost, print_json
from .session import Session, open_session


@takes_options
def generate(
    text: Annotated[str, typer.Argument(help="Text to continue, or to ask; - reads stdin.")],
    model: ModelChoice,
    decoding: Decoding,
    length: TextLength,
    form: TextForm,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Picture that the text asks about; several times for several."),
    ] = None,
    stream: Annotated[bool, typer.Option(help="Show drafts while they change.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Continue a text; with pictures, answer what it asks about them."""
    images = image or []
    check_files(images)
    text = sys.stdin.read() if text == "-" else text
    session = open_session(model)
    inputs, defaults = _request(session, text, images)
    options = decoding.over({**defaults, **length.keywords()})
    options |= form.keywords(session.processor.tokenizer)
    if stream and not as_json:
        options["streamer"] = drafts(session)
    answer = session.answer(inputs, options)[0]
    if as_json:
        asked = {"input": text, **({"images": [str(one) for one in images]} if images else {})}
        print_json({"task": "generate", **asked, "output": answer.value, **answer.cost()})
        return
    if not stream:
        typer.echo(answer.value if images else text + answer.value)
    print_cost(answer.cost())


def _request(
    session: Session, text: str, images: Sequence[Path]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Arguments of `generate()` for a text or for a turn with pictures, and its own options."""
    if not images:
        return session.processor.for_completion(text), samplers.completing(session.model)
    content: list[dict[str, Any]] = [{"type": "image", "image": one} for one in images]
    content.append({"type": "text", "text": text})
    messages = [{"role": "user", "content": content}]
    return session.processor.for_chat(messages), samplers.answering(session.model)


def drafts(session: Session) -> Any:
    """The streamer of transformers that shows unfinished text in yellow."""
    from transformers import TextDiffusionStreamer

    return TextDiffusionStreamer(
        session.processor.tokenizer,
        skip_prompt=True,
        sleep_time=0.03,
        skip_special_tokens=True,
    )
