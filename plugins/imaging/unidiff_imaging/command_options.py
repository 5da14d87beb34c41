"""What the commands of this plugin share: the files of a picture, and what is printed of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.output import check_picture_path, enlarged, picture_path, print_cost, print_json
from unidiff.plugins.answer import Answer

Picture = Annotated[Path, typer.Argument(help="A picture of any size.", show_default=False)]


@dataclass(frozen=True)
class Written:
    """Where pictures go, and how many."""

    out: Annotated[
        Path | None,
        typer.Option(help="Picture file to write; named after the command if unsaid."),
    ] = None
    num: Annotated[int, typer.Option(help="How many pictures.", min=1, max=256)] = 1
    scale: Annotated[int, typer.Option(help="Enlarge each pixel so many times.", min=1)] = 8
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False

    def files(self, default: str) -> list[Path]:
        """The file of each picture; raises ValueError unless `out` can be a picture."""
        out = Path(default) if self.out is None else self.out
        check_picture_path(out)
        return [picture_path(out, number, self.num) for number in range(self.num)]

    def write(
        self, files: Sequence[Path], answers: Sequence[Answer], report: Mapping[str, Any]
    ) -> None:
        """Write the pictures and print the report, or the files and the cost of the first."""
        for file, answer in zip(files, answers, strict=True):
            enlarged(answer.value, self.scale).save(file)
        if self.as_json:
            costs = [answer.cost() for answer in answers]
            print_json({**report, "files": files, "results": costs})
            return
        for file in files:
            typer.echo(str(file))
        print_cost(answers[0].cost())
