"""The application: its commands, and errors as one line instead of a traceback."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unidiff.plugins.registry import installed_commands, load_command

from .adapt import adapt
from .bench import bench
from .chat import chat
from .convert import convert, export
from .demo import demo
from .evaluate import evaluate
from .finetune import finetune, merge
from .generate import generate
from .info import info, show_version
from .plugins import new_plugin, plugins
from .tokenizer import tokenizer
from .trace import trace
from .training import prepare_data, train
from .verify import verify

_TASKS = "Tasks"
_PLUGINS = "Tasks of plugins"
_WORKSHOP = "Data, training, measurement"
ERROR_EXIT = 2
INTERRUPTED_EXIT = 130


class OneLineErrors(TyperGroup):
    """A group whose commands end with one line and exit code 2 where the user is to act."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of our commands, and behind them those of the plugins."""
        own = super().list_commands(ctx)
        return [*own, *sorted({one.name for one in installed_commands()} - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Our command of that name, or a plugin's, which is imported now."""
        own = super().get_command(ctx, cmd_name)
        return plugin_command(cmd_name) if own is None else own

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


def plugin_command(name: str) -> Any:
    """The command of a plugin; one that tells what is wrong if it cannot be loaded; or None."""
    try:
        function = load_command(name)
    except (ImportError, ValueError) as error:
        function = _broken(error)
    if function is None:
        return None
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, rich_help_panel=_PLUGINS)(function)
    return typer.main.get_command(single)


def _broken(error: Exception) -> Any:
    """A command that raises the error; its help is the error's message."""

    def broken() -> None:
        raise error

    broken.__doc__ = f"Broken: {_one_line(error)}"
    return broken


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


app.command(rich_help_panel=_TASKS)(demo)
app.command(rich_help_panel=_TASKS)(generate)
app.command(rich_help_panel=_TASKS)(chat)
app.command(rich_help_panel=_WORKSHOP)(trace)
app.command("prepare", rich_help_panel=_WORKSHOP)(prepare_data)
app.command(rich_help_panel=_WORKSHOP)(train)
app.command(rich_help_panel=_WORKSHOP)(finetune)
app.command(rich_help_panel=_WORKSHOP)(merge)
app.command(rich_help_panel=_WORKSHOP)(adapt)
app.command("eval", rich_help_panel=_WORKSHOP)(evaluate)
app.command(rich_help_panel=_WORKSHOP)(convert)
app.command(rich_help_panel=_WORKSHOP)(export)
app.command(rich_help_panel=_WORKSHOP)(verify)
app.command(rich_help_panel=_WORKSHOP)(info)
app.command(rich_help_panel=_WORKSHOP)(plugins)
app.command("new-plugin", rich_help_panel=_WORKSHOP)(new_plugin)
app.add_typer(tokenizer, rich_help_panel=_WORKSHOP)
app.add_typer(bench, rich_help_panel=_WORKSHOP)
