"""Discovery: from metadata, lazily, with broken plugins reported and duplicates named."""

import sys

import pytest

from unidiff.plugins import registry
from unidiff.plugins.plugin import Plugin
from unidiff.plugins.registry import (
    absent_plugins,
    all_plugins,
    find_task,
    installed_commands,
    installed_plugins,
    load_command,
    load_plugin,
    register,
    registered,
)

GROUP, COMMANDS = registry.GROUP, registry.COMMAND_GROUP
EMPTY = "from unidiff.plugins import Plugin\nplugin = Plugin('{name}')\n"


@pytest.fixture
def task():
    """A task of the skeleton, renamed by each test."""
    namespace = {}
    from importlib.resources import files

    text = (files("unidiff.plugins.skeleton") / "task.py.txt").read_text()
    for word, value in {"NAME": "bright", "DASHED": "bright", "CLASS": "Bright"}.items():
        text = text.replace("{{" + word + "}}", value)
    exec(compile(text, "task", "exec"), namespace)
    return namespace["Bright"]()


def names(found):
    return [one.name for one in found]


def test_listing_imports_nothing(install):
    module = install("unidiff-shy", {GROUP: {"shy": "unidiff_shy:plugin"}}, "raise OSError")
    assert "shy" in names(installed_plugins())
    assert module not in sys.modules


def test_a_plugin_is_loaded_by_name(install):
    install("unidiff-good", {GROUP: {"good": "unidiff_good:plugin"}}, EMPTY.format(name="good"))
    assert load_plugin("good").name == "good"


def test_a_factory_is_called(install):
    code = "from unidiff.plugins import Plugin\ndef make(): return Plugin('made')\n"
    install("unidiff-made", {GROUP: {"made": "unidiff_made:make"}}, code)
    assert load_plugin("made").name == "made"


@pytest.mark.parametrize("ending", ["raise RuntimeError('no disk')", "raise SystemExit('no disk')"])
def test_a_plugin_that_raises_on_import_is_reported_and_the_others_live(install, ending):
    install("unidiff-bad", {GROUP: {"bad": "unidiff_bad:plugin"}}, ending)
    install("unidiff-good", {GROUP: {"good": "unidiff_good:plugin"}}, EMPTY.format(name="good"))
    plugins, errors = all_plugins()
    assert "good" in plugins
    assert "bad" not in plugins
    assert "no disk" in errors["bad"]
    assert "unidiff-bad 1.0" in errors["bad"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from unidiff.plugins import Plugin\nplugin = Plugin('old', api_version=0)", "version 0"),
        ("from unidiff.plugins import Plugin\nplugin = Plugin('new')", "'new' but the entry point"),
        ("plugin = 3", "must name a unidiff.plugins.Plugin"),
        ("from unidiff.plugins import Plugin\nplugin = Plugin('old', tasks=(3,))", "it lacks"),
    ],
)
def test_what_does_not_fit_this_version_says_why(install, code, message):
    install("unidiff-old", {GROUP: {"old": "unidiff_old:plugin"}}, code)
    with pytest.raises(ImportError, match=message):
        load_plugin("old")


def test_two_distributions_with_one_name_are_both_named(install):
    for distribution in ("unidiff-one", "unidiff-two"):
        module = distribution.replace("-", "_")
        install(distribution, {GROUP: {"same": f"{module}:plugin"}}, EMPTY.format(name="same"))
    with pytest.raises(ValueError, match="unidiff-one and unidiff-two both bring a plugin 'same'"):
        load_plugin("same")
    assert "unidiff-one and unidiff-two" in all_plugins()[1]["same"]


def test_the_allow_list_hides_the_others(install, monkeypatch):
    for name in ("good", "other"):
        module = f"unidiff_{name}"
        points = {GROUP: {name: f"{module}:plugin"}, COMMANDS: {f"do-{name}": f"{module}:plugin"}}
        install(f"unidiff-{name}", points, EMPTY.format(name=name))
    monkeypatch.setenv(registry.ALLOW_LIST, "good")
    assert names(installed_plugins()) == ["good"]
    assert names(installed_commands()) == ["do-good"]
    with pytest.raises(ValueError, match="UNIDIFF_PLUGINS does not name it"):
        load_plugin("other")


def test_an_empty_allow_list_allows_none(install, monkeypatch):
    install("unidiff-good", {GROUP: {"good": "unidiff_good:plugin"}}, EMPTY.format(name="good"))
    monkeypatch.setenv(registry.ALLOW_LIST, "")
    assert installed_plugins() == []


def test_an_unknown_plugin_is_an_error_that_lists_the_known_ones(install):
    install("unidiff-good", {GROUP: {"good": "unidiff_good:plugin"}}, EMPTY.format(name="good"))
    with pytest.raises(ValueError, match=r"no plugin 'godo'.*'good'"):
        load_plugin("godo")


def test_a_task_is_found_by_its_name(task):
    with registered(Plugin("looks", tasks=(task,))):
        assert find_task("bright") is task
        assert find_task("looks/bright") is task


def test_two_tasks_of_one_name_need_the_plugin_s_name(task):
    with registered(Plugin("one", tasks=(task,))), registered(Plugin("two", tasks=(task,))):
        with pytest.raises(ValueError, match=r"one/bright.*two/bright"):
            find_task("bright")
        assert find_task("two/bright") is task


def test_an_unknown_task_names_the_broken_plugins(install):
    install("unidiff-bad", {GROUP: {"bad": "unidiff_bad:plugin"}}, "raise RuntimeError('no disk')")
    with pytest.raises(ValueError, match=r"plugin 'bad' is broken.*no disk"):
        find_task("bad_task")


def test_registering_twice_is_an_error_and_leaves_no_trace():
    with registered(Plugin("once")), pytest.raises(ValueError, match="registered already"):
        register(Plugin("once"))
    with pytest.raises(ValueError, match="no plugin 'once'"):
        load_plugin("once")


def test_a_command_is_loaded_from_its_own_group(install):
    points = {GROUP: {"good": "unidiff_good:plugin"}, COMMANDS: {"shout": "unidiff_good:shout"}}
    install("unidiff-good", points, EMPTY.format(name="good") + "def shout(): return 'hey'\n")
    assert load_command("shout")() == "hey"
    assert load_command("whisper") is None


def test_absent_plugins_are_those_of_the_extra_that_are_not_installed(install, monkeypatch):
    lines = [
        'unidiff-good; extra == "plugins"',
        "far>=2; extra == 'plugins'",
        "numpy",
        'x; extra == "y"',
    ]
    monkeypatch.setattr(registry, "requires", lambda name: lines)
    install("unidiff-good", {GROUP: {"good": "unidiff_good:plugin"}}, EMPTY.format(name="good"))
    assert absent_plugins() == ["far"]
