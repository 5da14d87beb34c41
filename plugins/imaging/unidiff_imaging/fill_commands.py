"""`unidiff inpaint` and `unidiff outpaint`: fill a hole in a picture, or what lies around one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from unidiff.cli.checks import check_files
from unidiff.cli.options import Decoding, ModelChoice, takes_options
from unidiff.cli.session import open_session
from unidiff.plugins.pictures import Box, box_mask

from .command_options import Picture, Written
from .filling import Inpainting, Outpainting, middle
from .pixels import on_canvas


@dataclass(frozen=True)
class Filled:
    """What is known beside the pixels, and what becomes of them."""

    text: Annotated[
        str | None, typer.Option(help="What the whole picture shows, if that is known.")
    ] = None
    keep_pixels: Annotated[
        bool,
        typer.Option(
            help="Put the known pixels back as they were; without, all pixels are the tokenizer's."
        ),
    ] = True

    def example(self, image: Any, **place: Any) -> dict[str, Any]:
        """Example of the task."""
        known = {} if self.text is None else {"text": self.text}
        return {"image": image, **place, **known}


@takes_options
def inpaint(
    image: Picture,
    model: ModelChoice,
    decoding: Decoding,
    filled: Filled,
    written: Written,
    box: Annotated[
        Box | None,
        typer.Option(metavar="ROW COL HEIGHT WIDTH", help="The hole, in the picture's pixels."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Picture of the same size, bright where the hole is.")
    ] = None,
) -> None:
    """Fill a hole in a picture."""
    if (box is None) == (mask is None):
        raise ValueError("give the hole: either --box ROW COL HEIGHT WIDTH or --mask FILE")
    check_files([image] if mask is None else [image, mask])
    files = written.files("filled.png")
    session = open_session(model)
    picture = session.processor.picture(image)
    if box is not None:
        hole = box_mask(picture.size, box)
    else:
        hole = np.asarray(session.processor.picture(mask).convert("L")) > 127
    example = filled.example(picture, hole=hole)
    task = Inpainting(keep_pixels=filled.keep_pixels)
    answers = session.ask(task, [example] * written.num, decoding.over({}))
    written.write(files, answers, {"task": "inpaint", "input": filled.text, "image": image})


@takes_options
def outpaint(
    image: Picture,
    model: ModelChoice,
    decoding: Decoding,
    filled: Filled,
    written: Written,
    window: Annotated[
        Box | None,
        typer.Option(
            metavar="ROW COL HEIGHT WIDTH",
            help="Where the picture stands on the canvas, in its pixels; else the middle half.",
        ),
    ] = None,
) -> None:
    """Extend a picture beyond its borders."""
    check_files([image])
    files = written.files("extended.png")
    session = open_session(model)
    size = session.processor.image_processor.size
    height, width = size["height"], size["width"]
    place = middle((width, height)) if window is None else window
    canvas, covered = on_canvas(session.processor.picture(image), (height, width), place)
    example = filled.example(Image.fromarray(canvas), window=covered)
    task = Outpainting(keep_pixels=filled.keep_pixels)
    answers = session.ask(task, [example] * written.num, decoding.over({}))
    report = {"task": "outpaint", "input": filled.text, "image": image, "window": list(covered)}
    written.write(files, answers, report)
