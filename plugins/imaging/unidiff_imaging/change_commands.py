"""`unidiff edit` and `unidiff upscale`: a picture in, another of the same thing out."""

from typing import Annotated

import typer

from unidiff.cli.checks import check_files, check_text
from unidiff.cli.options import Decoding, ModelChoice, takes_options
from unidiff.cli.session import open_session

from .command_options import Picture, Written
from .editing import PICTURE_GUIDANCE, WORDS_GUIDANCE, Editing
from .super_resolution import SuperResolution


@takes_options
def edit(
    image: Picture,
    instruction: Annotated[
        str, typer.Argument(help='Such as "make the red circle blue".', show_default=False)
    ],
    model: ModelChoice,
    decoding: Decoding,
    written: Written,
    picture_guidance: Annotated[
        float,
        typer.Option(help="How much the picture counts; --guidance is about the instruction."),
    ] = PICTURE_GUIDANCE,
) -> None:
    """Change a picture as an instruction says."""
    check_files([image])
    check_text(instruction, "instruction")
    files = written.files("edited.png")
    session = open_session(model)
    words = WORDS_GUIDANCE if decoding.guidance is None else decoding.guidance
    options = {**decoding.over({}), "guidance_scale": [picture_guidance, words]}
    example = {"image": image, "instruction": instruction.strip()}
    answers = session.ask(Editing(), [example] * written.num, options)
    written.write(files, answers, {"task": "edit", "input": instruction.strip(), "image": image})


@takes_options
def upscale(
    image: Picture,
    model: ModelChoice,
    decoding: Decoding,
    written: Written,
) -> None:
    """Make a coarse picture a full one."""
    check_files([image])
    files = written.files("upscaled.png")
    session = open_session(model)
    answers = session.ask(SuperResolution(), [{"image": image}] * written.num, decoding.over({}))
    written.write(files, answers, {"task": "upscale", "image": image})
