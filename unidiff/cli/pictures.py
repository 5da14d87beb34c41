"""`unidiff caption` and `ask`: pictures and what is said about them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import samplers
from .checks import check_files, check_text
from .options import Decoding, JsonFlag, ModelChoice, TextForm, TextLength, takes_options
from .output import print_cost, print_json
from .session import Answer, Session, open_session

DESCRIBE = "describe the picture."
Images = Annotated[list[Path], typer.Argument(help="Pictures of any size.", show_default=False)]
Image = Annotated[Path, typer.Argument(help="A picture of any size.", show_default=False)]


@takes_options
def caption(
    images: Images,
    model: ModelChoice,
    decoding: Decoding,
    length: TextLength,
    prompt: Annotated[str, typer.Option(help="What the user says.")] = DESCRIBE,
    as_json: JsonFlag = False,
) -> None:
    """Describe pictures."""
    check_files(images)
    session = open_session(model)
    options = decoding.over({**samplers.ANSWER, **length.keywords()})
    answers = ask_about(session, images, [prompt] * len(images), options)
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


@takes_options
def ask(
    image: Image,
    question: Annotated[str, typer.Argument(help="What to ask about it.", show_default=False)],
    model: ModelChoice,
    decoding: Decoding,
    length: TextLength,
    form: TextForm,
    as_json: JsonFlag = False,
) -> None:
    """Answer a question about a picture."""
    check_files([image])
    check_text(question, "question")
    session = open_session(model)
    options = decoding.over({**samplers.ANSWER, **length.keywords()})
    options |= form.keywords(session.processor.tokenizer)
    answer = ask_about(session, [image], [question], options)[0]
    if as_json:
        report = {"task": "ask", "image": image, "input": question, "output": answer.value}
        print_json({**report, **answer.cost()})
        return
    typer.echo(answer.value)
    print_cost(answer.cost())


def ask_about(
    session: Session, images: list[Any], questions: list[str], options: dict[str, Any]
) -> list[Answer]:
    """The answer to each question about its image."""
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": image}, _text(question)]}]
        for image, question in zip(images, questions, strict=True)
    ]
    return session.answer(session.processor.for_chat(chats), options)


def _text(text: str) -> dict[str, str]:
    """A text part of a message."""
    return {"type": "text", "text": text}
