"""`unidiff verify`: a checkpoint's own code agrees or is found out, and runs with consent only."""

import json
import sys
from pathlib import Path

import pytest
import transformers.dynamic_module_utils as dynamic
from typer.testing import CliRunner, Result

from unidiff.cli.app import ERROR_EXIT, app

from .published import TABLE, write_json
from .remote_code import write_plain, write_with_code


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers copies the code that it runs into this folder."""
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])


def verified(folder: Path, *more: str) -> Result:
    given = ("verify", str(folder), "--device", "cpu", "--new-tokens", "9", *more)
    return CliRunner().invoke(app, given)


@pytest.mark.parametrize("name", ["dream", "sdar"])
def test_a_faithful_reading_is_the_same(name: str, tmp_path: Path) -> None:
    folder = write_with_code(tmp_path / "foreign", name)
    result = verified(folder, "--trust-remote-code", "--json", "--prompt", "a b", "--prompt", "c")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["is_same"], report["family"]) == (True, name)
    assert [one["prompt"] for one in report["prompts"]] == ["a b", "c"]
    for one in report["prompts"]:
        assert one["max_difference"] < 1e-4
        assert one["scale"] > 0.1
        assert (one["same_likeliest"], one["same_tokens"]) == (1.0, 1.0)


def test_a_wrong_reading_is_found_out(tmp_path: Path) -> None:
    folder = write_with_code(tmp_path / "foreign", "dream", is_right=False)
    result = verified(folder, "--trust-remote-code", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["is_same"]
    assert max(one["max_difference"] / one["scale"] for one in report["prompts"]) > 0.01
    table = verified(folder, "--trust-remote-code")
    assert table.exit_code == 1
    assert "DIFFERENT" in table.stdout


def test_nothing_of_the_checkpoint_runs_without_consent(tmp_path: Path) -> None:
    folder = write_with_code(tmp_path / "foreign", "dream")
    with (folder / "theirs.py").open("a") as file:
        file.write(f"\nopen({str(tmp_path / 'it-ran')!r}, 'w').close()\n")
    result = verified(folder)
    assert result.exit_code == ERROR_EXIT
    words = " ".join(result.stderr.split())
    assert f"DreamModel of {folder}/theirs.py" in words
    assert "--trust-remote-code" in words
    assert not (tmp_path / "it-ran").exists()
    assert verified(folder, "--trust-remote-code", "--prompt", "a").exit_code == 0
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("open-dllm", "qwen2"), ("autoregressive", "qwen2"), ("autoregressive", "qwen3")],
)
def test_what_transformers_has_is_compared_with_its_class(
    name: str, kind: str, tmp_path: Path
) -> None:
    folder = write_plain(tmp_path / "foreign", name, kind)
    result = verified(folder, "--prompt", "a b")
    assert result.exit_code == 0, result.output
    assert "the same" in result.stdout
    assert "Qwen" in result.stdout


def test_a_checkpoint_without_any_class_says_so(tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "foreign", "a2d", "a2d-qwen3")
    result = verified(folder)
    assert result.exit_code == ERROR_EXIT
    assert "nothing to compare with" in " ".join(result.stderr.split())


def test_the_code_of_another_repository_is_named_as_such(tmp_path: Path) -> None:
    dream = next(one for one in TABLE if one.name == "dream")
    folder = dream.write(tmp_path / "foreign", dream.model())
    write_json(folder / "config.json", {**dream.config, "auto_map": {"AutoModel": "a/b--m.Kind"}})
    result = verified(folder)
    assert result.exit_code == ERROR_EXIT
    assert "Kind of a/b/m.py" in " ".join(result.stderr.split())


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "foreign", "autoregressive", "qwen2")
    result = verified(folder, "--dtype", "int8")
    assert result.exit_code == ERROR_EXIT
    assert "dtype must be one of" in result.stderr
