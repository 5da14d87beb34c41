"""`unidiff draw`."""

from typing import Annotated

import typer

from unidiff.cli.checks import check_text
from unidiff.cli.options import Decoding, ModelChoice, takes_options
from unidiff.cli.session import open_session

from .command_options import Written
from .text_to_image import TextToImage, drawing_sentence


@takes_options
def draw(
    request: Annotated[str, typer.Argument(help='Such as "a red circle left of a blue square".')],
    model: ModelChoice,
    decoding: Decoding,
    written: Written,
) -> None:
    """Draw a sentence."""
    check_text(request, "request")
    files = written.files("drawing.png")
    session = open_session(model)
    said = drawing_sentence(request)
    answers = session.ask(TextToImage(), [{"text": said}] * written.num, decoding.over({}))
    written.write(files, answers, {"task": "draw", "input": said})
