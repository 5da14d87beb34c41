"""`unidiff chat`: a conversation in the terminal, about a picture or without one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from . import samplers
from .checks import check_files
from .generate import drafts
from .options import Decoding, ModelChoice, TextLength, takes_options
from .session import Answer, Session, open_session

HELP = "/image PATH shows another picture, /new starts afresh, /quit ends."
PROMPT = "you> "


class Conversation:
    """What has been said so far, and the cache of it."""

    def __init__(self, session: Session, options: dict[str, Any], image: Any = None) -> None:
        """Conversation that begins with a picture (in any form), or without one."""
        self.session = session
        self.options = options
        self.restart(image)

    def restart(self, image: Any = None) -> None:
        """Forget everything said; the next turn shows this picture.

        Raises:
            FileNotFoundError: if the picture is a path and there is no such file.
            ValueError: if it is no picture, or the checkpoint reads none.
        """
        if isinstance(image, Path):
            check_files([image])
        part = None if image is None else _picture_part(self.session, image)
        self.image = part
        self.messages: list[dict[str, Any]] = []
        self.cache: Any = None

    def say(self, text: str, streamer: Any = None) -> Answer:
        """The answer to one more turn of the user."""
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if self.image is not None and not self.messages:
            content.insert(0, self.image)
        self.messages.append({"role": "user", "content": content})
        inputs = self.session.processor.for_chat(self.messages)
        options = {**self.options, "past_key_values": self.cache, "streamer": streamer}
        answers, output = self.session.answer_and_output(inputs, options)
        self.cache = output.past_key_values
        self.messages.append({"role": "assistant", "content": answers[0].value})
        return answers[0]


def _picture_part(session: Session, image: Any) -> dict[str, Any]:
    """The content part of a picture, which is opened and read now."""
    processor = session.processor
    part = {"type": "image", "image": processor.picture(image)}
    coded = processor.coded_part(part)  # the codes of a picture are made once
    return part if "soft" in coded else coded


@takes_options
def chat(
    model: ModelChoice,
    decoding: Decoding,
    length: TextLength,
    image: Annotated[Path | None, typer.Option(help="Picture to talk about.")] = None,
    drafted: Annotated[
        bool, typer.Option("--drafts/--no-drafts", help="Show answers while they change.")
    ] = True,
) -> None:
    """Talk, about a picture or without one; reads stdin lines where there is no terminal."""
    if image is not None:
        check_files([image])
    session = open_session(model)
    options = decoding.over({**samplers.answering(session.model), **length.keywords()})
    conversation = Conversation(session, options, image)
    shows_drafts = drafted and sys.stdout.isatty()
    for line in _lines():
        if line == "/quit":
            return
        if line.startswith("/"):
            _obey(line, conversation)
        elif shows_drafts:
            conversation.say(line, drafts(session))
        else:
            typer.echo(conversation.say(line).value)


def _obey(line: str, conversation: Conversation) -> None:
    """Carry out a line that begins with a slash; what is wrong with it is said, not raised."""
    command, _, rest = line.partition(" ")
    try:
        if command == "/image" and rest.strip():
            conversation.restart(Path(rest.strip()))
        elif command == "/new":
            conversation.restart(None)
        else:
            typer.echo(HELP, err=True)
    except (OSError, ValueError) as error:
        typer.echo(f"unidiff: {error}", err=True)


def _lines() -> Iterator[str]:
    """What the user says, blank lines left out, until the end of input."""
    if not sys.stdin.isatty():
        yield from filter(None, map(str.strip, sys.stdin))
        return
    typer.echo(HELP, err=True)
    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            typer.echo("", err=True)
            return
        if line:
            yield line
