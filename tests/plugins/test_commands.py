"""`unidiff plugins`, `unidiff new-plugin`, and the commands that plugins bring."""

import json

import pytest
from typer.testing import CliRunner

from unidiff.cli.app import app
from unidiff.plugins import registry

GROUP, COMMANDS = registry.GROUP, registry.COMMAND_GROUP
GOOD = """
from unidiff.plugins import Plugin

plugin = Plugin("good")


def shout(word: str, times: int = 1) -> None:
    '''Say it loudly.'''
    if word == "nothing":
        raise ValueError("say something, got nothing")
    print(word.upper() * times)
"""


@pytest.fixture
def run():
    def command(*line):
        return CliRunner().invoke(app, [str(part) for part in line])

    return command


@pytest.fixture
def good(install):
    points = {GROUP: {"good": "unidiff_good:plugin"}, COMMANDS: {"shout": "unidiff_good:shout"}}
    install("unidiff-good", points, GOOD)


@pytest.fixture
def bad(install):
    points = {GROUP: {"bad": "unidiff_bad:plugin"}, COMMANDS: {"whisper": "unidiff_bad:whisper"}}
    install("unidiff-bad", points, "raise RuntimeError('no disk')")


def reports(result):
    assert result.exit_code == 0, result.output
    return {one["name"]: one for one in json.loads(result.stdout)["plugins"]}


@pytest.mark.usefixtures("good", "bad")
def test_plugins_are_listed_with_commands_and_what_is_wrong(run):
    found = reports(run("plugins", "--json"))
    assert found["good"]["commands"] == ["shout"]
    assert found["good"]["tasks"] == []
    assert found["good"]["version"] == "1.0"
    assert "no disk" in found["bad"]["error"]


@pytest.mark.usefixtures("bad")
def test_a_fast_list_imports_nothing(run):
    found = reports(run("plugins", "--json", "--fast"))
    assert found["bad"]["distribution"] == "unidiff-bad"
    assert "error" not in found["bad"]


@pytest.mark.usefixtures("good", "bad")
def test_plugins_are_lines_for_people(run):
    result = run("plugins")
    assert "good  unidiff-good 1.0" in result.stdout
    assert "commands: shout" in result.stdout
    assert "broken: " in result.stdout


@pytest.mark.usefixtures("good")
def test_a_plugins_command_runs_with_its_options_and_errors_are_one_line(run):
    assert run("shout", "hey", "--times", 2).stdout == "HEYHEY\n"
    result = run("shout", "nothing")
    assert result.exit_code == 2
    assert result.stderr == "unidiff: say something, got nothing\n"


@pytest.mark.usefixtures("good", "bad")
def test_help_lists_the_commands_of_plugins_broken_ones_too(run):
    text = run("--help").stdout
    assert "shout" in text
    assert "Say it loudly." in text
    assert "whisper" in text
    assert "Broken: " in text
    assert "generate" in text


@pytest.mark.usefixtures("bad")
def test_a_broken_command_says_why_and_ends_with_two(run):
    result = run("whisper")
    assert result.exit_code == 2
    assert "no disk" in result.stderr


def test_our_own_commands_come_first(run, install):
    points = {GROUP: {"good": "unidiff_good:plugin"}, COMMANDS: {"info": "unidiff_good:shout"}}
    install("unidiff-good", points, GOOD)
    assert "word" not in run("info", "--help").stdout.lower()


def test_an_unknown_command_is_an_error(run):
    assert run("sing").exit_code == 2


def test_a_new_plugin_is_written_where_asked(run, tmp_path):
    result = run("new-plugin", "my_task", "--out", tmp_path)
    assert result.exit_code == 0
    assert (tmp_path / "my_task" / "pyproject.toml").is_file()
    assert "pip install" in result.stdout
    again = run("new-plugin", "my_task", "--out", tmp_path)
    assert again.exit_code == 2
    assert "exists" in again.stderr
