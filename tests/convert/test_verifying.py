"""`unidiff verify`: a checkpoint's own code agrees or is found out, and runs with consent only."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import transformers.dynamic_module_utils as dynamic
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from unidiff.cli.app import ERROR_EXIT, app
from unidiff.convert import tensors as stored
from unidiff.convert.loading import open_foreign
from unidiff.convert.their_code import their_logits, their_model

from .published import TABLE, write_json
from .published_moe import MIXTURES
from .remote_code import write_plain, write_with_code


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers copies the code that it runs into this folder."""
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])


def verified(folder: Path, *more: str) -> Result:
    given = ("verify", str(folder), "--device", "cpu", "--new-tokens", "9", *more)
    return CliRunner().invoke(app, given)


@pytest.mark.parametrize("name", ["dream", "sdar", "mdlm", "bd3lm"])
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


def test_a_checkpoint_without_any_class_says_so_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_read_bytes", lambda *given: pytest.fail("a weight was read"))
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


def test_a_grid_is_told_to_a_class_that_does_not_know_it(tmp_path: Path) -> None:
    folder = write_with_code(tmp_path / "foreign", "a2d")
    assert verified(folder, "--trust-remote-code", "--prompt", "a b").exit_code == 0
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "block_size": 4})
    result = verified(folder, "--trust-remote-code", "--prompt", "a b")
    assert result.exit_code == 0, result.output


def test_their_model_has_the_type_that_is_asked_for(tmp_path: Path) -> None:
    opened = open_foreign(write_with_code(tmp_path / "foreign", "sdar"))
    model = their_model(opened, torch.bfloat16, "cpu")
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    assert their_logits(model, opened, torch.arange(9)).dtype == torch.float32


def test_llada2_is_given_the_grid_as_numbers_to_add(tmp_path: Path) -> None:
    published = next(one for one in MIXTURES if one.name == "llada2")
    opened = open_foreign(published.write(tmp_path / "foreign", published.model()))
    ids = torch.arange(20)[None]
    given = opened.family.own_inputs(20, opened.config)
    with torch.no_grad():
        found = published.model()(ids, **given).logits
    torch.testing.assert_close(found, published.logits(published.model(), ids))


def test_pickles_are_compared_with_leave(tmp_path: Path) -> None:
    folder = write_with_code(tmp_path / "foreign", "dream")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    result = verified(folder, "--trust-remote-code", "--prompt", "a b")
    assert result.exit_code == ERROR_EXIT
    assert "--allow-pickle" in result.stderr
    result = verified(folder, "--trust-remote-code", "--prompt", "a b", "--allow-pickle")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            "return super().forward(",
            "return self.nothing(",
            r"DreamModel, the checkpoint's own class, failed when it was called with input_ids "
            r"\(1, \d+\) int64: AttributeError: 'DreamModel' object has no attribute 'nothing'",
        ),
        (
            "def forward(self, input_ids, attention_mask=None, **kwargs)",
            "def forward(self, input_ids, kwargs)",
            r"DreamModel.* failed when it was called with .*: TypeError: .* 'kwargs' "
            r"\(it was written for transformers 4\.46\.2; here is 5",
        ),
        (
            "return super().forward(",
            "return (lambda *given, **named: (None,))(",
            "and gave tuple, where logits of shape",
        ),
        (
            "class DreamModel(Qwen2ForCausalLM):",
            "class DreamModel(Qwen2ForCausalLM):\n    config_class.other\n",
            "DreamModel, .* failed when it was made: NameError",
        ),
        (
            "    def forward(",
            "    def __init__(self, config):\n        super().__init__(config)\n"
            "        self.more = torch.nn.Linear(2, 2)\n\n    def forward(",
            r"DreamModel, .* has more\.bias, more\.weight, which .* lacks",
        ),
        (
            "    def forward(",
            "    def __init__(self, config):\n        super().__init__(config)\n"
            "        self.lm_head = torch.nn.Linear(2, 2)\n\n    def forward(",
            r"lm_head\.weight has the shape \(2, 2\) in DreamModel",
        ),
    ],
)
def test_what_their_code_does_wrong_is_named(
    before: str, after: str, words: str, tmp_path: Path
) -> None:
    folder = write_with_code(tmp_path / "foreign", "dream")
    code = (folder / "theirs.py").read_text()
    assert before in code
    (folder / "theirs.py").write_text(code.replace(before, after))
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "transformers_version": "4.46.2"})
    result = verified(folder, "--trust-remote-code", "--prompt", "a")
    assert result.exit_code == ERROR_EXIT
    assert re.search(words, " ".join(result.stderr.split())), result.stderr


def test_a_map_without_a_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_read_bytes", lambda *given: pytest.fail("a weight was read"))
    folder = write_with_code(tmp_path / "foreign", "dream")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "auto_map": {"AutoConfig": "theirs.DreamConfig"}})
    result = verified(folder, "--trust-remote-code")
    assert result.exit_code == ERROR_EXIT
    assert "names AutoConfig, and what can be compared" in " ".join(result.stderr.split())


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "foreign", "autoregressive", "qwen2")
    result = verified(folder, "--dtype", "int8")
    assert result.exit_code == ERROR_EXIT
    assert "dtype must be one of" in result.stderr
