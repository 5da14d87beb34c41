"""The application: its commands, and errors as one line instead of a traceback."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .act import act
from .bench import bench
from .chat import chat
from .demo import demo
from .generate import generate
from .infill import infill
from .info import info, show_version
from .pictures import ask, caption, draw
from .trace import trace
from .training import evaluate, prepare_data, train

ERROR_EXIT = 2
INTERRUPTED_EXIT = 130


class OneLineErrors(TyperGroup):
    """A group whose commands end with one line and exit code 2 where the user is to act."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; ValueError, OSError and ImportError become a line on stderr."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (ValueError, OSError, ImportError) as error:
            typer.echo(f"unidiff: {_one_line(error)}", err=True)
            raise typer.Exit(ERROR_EXIT) from error
        except KeyboardInterrupt as error:
            typer.echo("unidiff: interrupted", err=True)
            raise typer.Exit(INTERRUPTED_EXIT) from error


def _one_line(error: BaseException) -> str:
    """The error's message on one line; its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


app = typer.Typer(
    name="unidiff",
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Versions.")
    ] = False,
) -> None:
    """One masked-diffusion transformer over text, images and robot actions."""
    del version


_TASKS = "Tasks"
_WORKSHOP = "Data, training, measurement"
app.command(rich_help_panel=_TASKS)(demo)
app.command(rich_help_panel=_TASKS)(generate)
app.command(rich_help_panel=_TASKS)(chat)
app.command(rich_help_panel=_TASKS)(caption)
app.command(rich_help_panel=_TASKS)(ask)
app.command(rich_help_panel=_TASKS)(draw)
app.command(rich_help_panel=_TASKS)(infill)
app.command(rich_help_panel=_TASKS)(act)
app.command(rich_help_panel=_WORKSHOP)(trace)
app.command("prepare", rich_help_panel=_WORKSHOP)(prepare_data)
app.command(rich_help_panel=_WORKSHOP)(train)
app.command("eval", rich_help_panel=_WORKSHOP)(evaluate)
app.command(rich_help_panel=_WORKSHOP)(info)
app.add_typer(bench, rich_help_panel=_WORKSHOP)
