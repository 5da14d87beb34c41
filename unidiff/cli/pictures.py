"""`unidiff caption`, `ask` and `draw`: pictures and what is said about them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.data.sources.garments import caption_names_class

from . import samplers
from .options import Decoding, JsonFlag, ModelChoice, TextForm, TextLength, takes_options
from .output import check_picture_path, picture_path, print_cost, print_json
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


@takes_options
def draw(
    request: Annotated[str, typer.Argument(help='Such as "a red circle left of a blue square".')],
    model: ModelChoice,
    decoding: Decoding,
    out: Annotated[Path, typer.Option(help="Picture file to write.")] = Path("drawing.png"),
    num: Annotated[int, typer.Option(help="How many drawings.", min=1, max=256)] = 1,
    scale: Annotated[int, typer.Option(help="Enlarge each pixel so many times.", min=1)] = 8,
    as_json: JsonFlag = False,
) -> None:
    """Draw a sentence."""
    check_text(request, "request")
    check_picture_path(out)
    session = open_session(model)
    said = drawing_sentence(request)
    inputs = session.processor.for_image([said] * num)
    answers = session.answer(inputs, decoding.over(samplers.drawing()))
    files = []
    for number, answer in enumerate(answers):
        files.append(picture_path(out, number, num))
        enlarged(answer.value, scale).save(files[-1])
    if as_json:
        report: dict[str, Any] = {"task": "draw", "input": said, "files": files}
        print_json({**report, "results": [answer.cost() for answer in answers]})
        return
    for file in files:
        typer.echo(str(file))
    print_cost(answers[0].cost())


def ask_about(
    session: Session, images: list[Any], questions: list[str], options: dict[str, Any]
) -> list[Answer]:
    """The answer to each question about its image."""
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": image}, _text(question)]}]
        for image, question in zip(images, questions, strict=True)
    ]
    return session.answer(session.processor.for_chat(chats), options)


def drawing_sentence(request: str) -> str:
    """The request as training has it: "draw ..." for a noun phrase, a full stop for a garment."""
    words = request.strip().rstrip(".").lower()
    if words.startswith(("a ", "an ", "the ")):
        words = f"draw {words}"
    return words if caption_names_class(words) is None else f"{words}."


def enlarged(picture: Any, scale: int) -> Any:
    """The PIL picture with every pixel repeated."""
    from PIL import Image as Pillow

    size = (picture.width * scale, picture.height * scale)
    return picture.resize(size, Pillow.Resampling.NEAREST)


def check_files(paths: list[Path]) -> None:
    """Raise FileNotFoundError that names the first missing file."""
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file")


def check_text(text: str, name: str) -> None:
    """Raise ValueError if a text has nothing in it."""
    if not text.strip():
        raise ValueError(f"the {name} is empty: say something")


def _text(text: str) -> dict[str, str]:
    """A text part of a message."""
    return {"type": "text", "text": text}
