"""`unidiff eval`: suites, and the tasks of plugins."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig

from unidiff.bundled import bundled_checkpoint
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.plugins import (
    ChatTask,
    Evaluation,
    EvaluationReport,
    Plugin,
    registered,
    registry,
    user,
)
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.training.adapter_folder import record_of, save_adapter


class Parrot(ChatTask):
    """A task that only a test has."""

    name, summary = "parrot", "Says it again."
    modalities, columns = frozenset({"text"}), {"said": "what was said"}
    decoding = {"max_new_tokens": 2}

    def messages(self, example):
        return [user(example["said"])]

    def dataset(self, split, limit=None):
        assert split == "test"
        return [{"said": word} for word in "abc"[:limit]]

    def metrics(self):
        return {"said_something": lambda results, examples: np.ones(len(results))}


class Whale(Parrot):
    """A task of a modality that the checkpoint does not have."""

    name, modalities = "whale", frozenset({"song"})


@pytest.fixture
def parrot(monkeypatch):
    monkeypatch.setattr(registry, "installed_plugins", lambda: [])
    with registered(Plugin("animals", tasks=(Parrot(), Whale()))):
        yield


@pytest.mark.usefixtures("parrot")
def test_all_tasks_are_measured_and_what_cannot_be_is_named(run_command, tmp_path):
    out = tmp_path / "deep" / "tasks.json"
    result = run_command("eval", "tasks", "--limit", 2, "--out", out, "--json")
    assert result.code == 0, (result.err, result.exception)
    (report,) = result.report["tasks"]
    assert report["task"] == "parrot"
    assert report["metrics"]["said_something"]["value"] == 1.0
    assert report["num_examples"] == 2
    assert result.report["skipped"] == {"whale": "the checkpoint has no song tokens"}
    assert json.loads(out.read_text()) == result.report
    assert "| parrot | base | `said_something` | 1.000" in out.with_suffix(".md").read_text()


@pytest.mark.usefixtures("parrot")
def test_a_task_that_brings_an_adapter_is_measured_with_it_too(run_command, monkeypatch, tmp_path):
    folder = tmp_path / "adapter"
    processor = UniDiffProcessor.from_pretrained(bundled_checkpoint())
    model = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
    record = record_of(model, "parrot")
    model.add_adapter(LoraConfig(r=1, target_modules=["q_proj"]))
    save_adapter(model, folder, processor, record)
    monkeypatch.setattr(Parrot, "adapter", folder)
    result = run_command("eval", "tasks", "--limit", 1, "--json", checkpoint=None)
    assert result.code == 0, (result.err, result.exception)
    found = [(one["task"], one["model"]) for one in result.report["tasks"]]
    assert found == [("parrot", "base"), ("parrot", "its own adapter")]


@pytest.mark.usefixtures("parrot")
def test_one_task_is_a_table_for_people(run_command):
    result = run_command("eval", "parrot", "--limit", 1)
    assert result.code == 0, (result.err, result.exception)
    assert "| parrot | base | `said_something` |" in result.out


@pytest.mark.usefixtures("parrot")
def test_a_task_may_be_measured_in_its_own_way(run_command, monkeypatch, tmp_path, tiny_checkpoint):
    asked = []

    def measure(request):
        asked.append(request)
        request.progress("words", 1, 2)
        return EvaluationReport({"loud": 1}, "| loud |\n")

    own = Evaluation({"volume": "how loud"}, measure)
    monkeypatch.setattr(Parrot, "evaluation", lambda self: own)
    out = tmp_path / "deep" / "own.json"
    line = ("eval", "parrot", "--limit", 3, "--seed", 5, "--set", "volume=9", "--out", out)
    result = run_command(*line, "--json")
    assert result.code == 0, (result.err, result.exception)
    assert result.report == json.loads(out.read_text()) == {"loud": 1}
    assert out.with_suffix(".md").read_text() == "| loud |\n"
    (request,) = asked
    assert (request.limit, request.seed, request.settings) == (3, 5, {"volume": "9"})
    assert request.cells == tmp_path / "deep" / "own.cells"
    assert request.checkpoint == tiny_checkpoint
    assert "| loud |" in run_command("eval", "parrot").out
    refused = run_command("eval", "parrot", "--set", "speed=1")
    assert refused.code == 2
    assert "there are volume: how loud" in refused.err


@pytest.mark.usefixtures("parrot")
def test_settings_for_what_has_none_are_refused(run_command):
    for which in ("parrot", "bundled"):
        result = run_command("eval", which, "--set", "volume=9")
        assert result.code == 2
        assert f"{which!r} does not" in result.err


def test_eval_reports_json_and_writes_it(run_command, tmp_path):
    out = tmp_path / "reports" / "r.json"
    line = ("eval", "bundled", "--metric", "closed_loop_success", "--limit", 1, "--out", out)
    result = run_command(*line, "--json")
    assert result.code == 0, (result.err, result.exception)
    assert list(result.report["metrics"]) == ["closed_loop_success"]
    assert json.loads(out.read_text()) == result.report
    assert result.report["limit"] == 1


def test_eval_is_a_table_for_people(run_command):
    line = ("eval", "bundled", "--metric", "closed_loop_success", "--limit", 1)
    result = run_command(*line)
    assert result.code == 0, (result.err, result.exception)
    assert "closed_loop_success" in result.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("soup",), "no installed plugin has a task 'soup'"),
        (("bundled", "--metric", "taste"), "taste"),
        (("tasks", "--metric", "taste"), "a task has its own"),
    ],
)
def test_eval_of_something_unknown_is_one_line(run_command, line, words):
    result = run_command("eval", *line)
    assert result.code == 2
    assert words in result.err
