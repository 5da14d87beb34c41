"""`unidiff infill`: fill holes in a text, in a picture, or in both together."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli import samplers
from unidiff.cli.checks import check_files
from unidiff.cli.options import Decoding, JsonFlag, ModelChoice, takes_options
from unidiff.cli.output import check_picture_path, enlarged, print_cost, print_json
from unidiff.cli.session import Session, open_session
from unidiff.plugins.answers import check_fits
from unidiff.plugins.pictures import Box, box_mask

from .middle_command import OneHole, fill_one_hole


@takes_options
def infill(
    model: ModelChoice,
    decoding: Decoding,
    one_hole: OneHole,
    text: Annotated[str | None, typer.Argument(help="Text with <|hole|> where one is.")] = None,
    hole_length: Annotated[int, typer.Option(help="Tokens of each hole in the text.", min=1)] = 4,
    image: Annotated[Path | None, typer.Option(help="Picture with a hole in it.")] = None,
    box: Annotated[
        Box | None,
        typer.Option(metavar="ROW COL HEIGHT WIDTH", help="The picture's hole, in its own pixels."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture file to write.")] = Path("filled.png"),
    scale: Annotated[int, typer.Option(help="Enlarge each pixel so many times.", min=1)] = 8,
    as_json: JsonFlag = False,
) -> None:
    """Fill holes in a text, in a picture, or in a picture and its caption together."""
    if text is None and image is None:
        raise ValueError("give a text with <|hole|> in it, or --image with --box")
    if image is None and box is not None:
        raise ValueError("--box is the hole of a picture: give --image too")
    if image is not None:
        check_files([image])
        check_picture_path(out)
    session = open_session(model)
    longest = session.model.config.max_position_embeddings
    if hole_length > longest:
        raise ValueError(
            f"--hole-length must be at most {longest} for this model; got {hole_length}"
        )
    if one_hole.is_asked:
        if image is not None or text is None:
            raise ValueError("--boundary and --search-length are about a text without a picture")
        fill_one_hole(session, text, hole_length, one_hole, decoding, as_json)
        return
    inputs = _request(session, text, hole_length, image, box)
    check_fits(session.model, inputs)
    defaults = samplers.filling(inputs) if image is None else samplers.drawing()
    answer = session.answer(inputs, decoding.over(defaults))[0]
    report: dict[str, Any] = {"task": "infill", "input": text, "image": image}
    report |= _saved(answer.value, out, scale) | answer.cost()
    if as_json:
        print_json(report)
        return
    for name in ("output", "file"):
        if report.get(name) is not None:
            typer.echo(str(report[name]))
    print_cost(report)


def _request(
    session: Session, text: str | None, hole_length: int, image: Path | None, box: Box | None
) -> Any:
    """What the processor makes of the holes."""
    processor = session.processor
    if image is None:
        return processor.for_text_infill(text or "", hole_length)
    hole = None if box is None else box_mask(processor.picture(image).size, box)
    if text is None:
        if hole is None:
            raise ValueError("--image needs --box ROW COL HEIGHT WIDTH: nothing is to be filled")
        return processor.for_image_infill(image, hole)
    return processor.for_joint_infill(image, hole, text, hole_length)


def _saved(value: Any, out: Path, scale: int) -> dict[str, Any]:
    """The text and the file of an answer's parts; writes the file."""
    parts = {"text": value} if isinstance(value, str) else value
    parts = parts if isinstance(parts, dict) else {"image": parts}
    if "image" in parts:
        enlarged(parts["image"], scale).save(out)
    return {"output": parts.get("text"), "file": out if "image" in parts else None}
