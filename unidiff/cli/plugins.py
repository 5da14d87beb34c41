"""`unidiff plugins` and `unidiff new-plugin`: what is installed, and how to begin one's own."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.plugins.registry import all_plugins, installed_commands, installed_plugins
from unidiff.plugins.skeleton import write_skeleton

from .options import JsonFlag
from .output import print_json


def plugins(
    as_json: JsonFlag = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Metadata only: import no plugin, list no task.")
    ] = False,
) -> None:
    """List the installed plugins, their tasks and commands, and what is wrong with them."""
    reports = _described(fast)
    if as_json:
        print_json({"plugins": reports})
        return
    if not reports:
        typer.echo("no plugins are installed; `unidiff new-plugin NAME` begins one")
    for report in reports:
        typer.echo(f"{report['name']}  {report['distribution']} {report['version']}")
        if "error" in report:
            typer.secho(f"    broken: {report['error']}", fg="red")
        for task in report.get("tasks", []):
            typer.echo(f"    {task['name']}: {task['summary']}")
        if report.get("modalities"):
            typer.echo(f"    kinds of tokens: {', '.join(report['modalities'])}")
        if report["commands"]:
            typer.echo(f"    commands: {', '.join(report['commands'])}")


def new_plugin(
    name: Annotated[str, typer.Argument(help="Of the plugin and its task: lower case, digits, _.")],
    out: Annotated[Path, typer.Option(help="Folder in which the plugin's folder is made.")] = Path(
        "plugins"
    ),
) -> None:
    """Write a plugin that works and passes its tests, to be changed into another."""
    folder = write_skeleton(name, out)
    typer.echo(f"{folder}: now run")
    typer.echo(f"    pip install --no-build-isolation --no-deps -e {folder}")
    typer.echo(f"    python -m pytest {folder / 'tests'}")


def _described(fast: bool) -> list[dict[str, Any]]:
    """One report for each installed plugin."""
    plugins, errors = ({}, {}) if fast else all_plugins()
    commands = installed_commands()
    reports = []
    for one in installed_plugins():
        report: dict[str, Any] = {
            "name": one.name,
            "value": one.value,
            "distribution": one.distribution,
            "version": one.version,
            "commands": [c.name for c in commands if c.distribution == one.distribution],
        }
        if one.name in plugins:
            plugin = plugins[one.name]
            report["api_version"] = plugin.api_version
            report["tasks"] = [
                {
                    "name": task.name,
                    "summary": task.summary,
                    "modalities": sorted(task.modalities),
                    "columns": dict(task.columns),
                    "adapter": task.adapter,
                }
                for task in plugin.tasks
            ]
            report["modalities"] = [kind.name for kind in plugin.modalities]
        if one.name in errors:
            report["error"] = errors[one.name]
        reports.append(report)
    return reports
