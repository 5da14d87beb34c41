"""`unidiff finetune`, `merge`, and adapters as checkpoints of other commands."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.plugins import ChatTask, LoRADefaults, Plugin, registered, registry, shown, user


class Colours(ChatTask):
    """A task that only a test has: name a picture's colour."""

    name, summary = "colours", "Name a picture's colour."
    modalities = frozenset({"text", "image"})
    columns = {"image": "the picture", "answer": "its colour"}
    decoding = {"max_new_tokens": 2, "block_length": 2}
    lora = LoRADefaults(r=2, alpha=4, steps=2, batch_size=4)

    def messages(self, example):
        return [user(shown(example["image"]), "which colour?")]

    def answer(self, example):
        return example["answer"]

    def dataset(self, split, limit=None):
        return [
            {"image": np.full((8, 8, 3), 20 * (n % 6), dtype=np.uint8), "answer": "dark"}
            for n in range(6 if limit is None else limit)
        ]

    def metrics(self):
        return {"length": lambda said, examples: np.array([float(len(s) > 0) for s in said])}


class Shapes(Colours):
    """Another task, to be retained."""

    name = "shapes"


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setattr(registry, "installed_plugins", lambda: [])
    with registered(Plugin("test_only", tasks=(Colours(), Shapes()))):
        yield


LINE = ("finetune", "--task", "colours", "--held-out", 2)


def test_an_adapter_is_made_measured_and_used_as_a_checkpoint(run_command, tmp_path):
    out = tmp_path / "adapter"
    result = run_command(*LINE, "--out", out, "--retain", 1, "--lora", "r=3", "--json")
    assert result.code == 0, (result.err, result.exception)
    assert result.report["settings"]["lora"]["r"] == 3
    assert result.report["settings"]["retain"][0] == 1.0
    assert result.report["settings"]["retain_tasks"] == ["shapes"]
    assert result.report["before"]["num_examples"] == result.report["after"]["num_examples"] == 2
    assert json.loads((out / "finetune.json").read_text()) == result.report
    told = run_command("generate", "def", "--max-new-tokens", 2, "--json", checkpoint=out)
    assert told.code == 0, (told.err, told.exception)
    assert run_command("info", "--json", checkpoint=out).report["checkpoint"]["task"] == "colours"


def test_a_second_run_of_the_same_command_finds_it_done(run_command, tmp_path):
    out = tmp_path / "adapter"
    first = run_command(*LINE, "--out", out, "--json")
    again = run_command(*LINE, "--out", out, "--json")
    assert again.report["after"]["metrics"] == first.report["after"]["metrics"]


def test_a_merged_checkpoint_stands_alone(run_command, tmp_path):
    out, merged = tmp_path / "adapter", tmp_path / "merged"
    assert run_command(*LINE, "--out", out).code == 0
    assert run_command("merge", out, merged, checkpoint=None).code == 0
    assert not (merged / "adapter_config.json").exists()
    assert run_command("info", "--json", checkpoint=merged).code == 0
    ids = torch.tensor([[2, 300, 301, 57]])
    one = UniDiffForBlockDiffusion.from_pretrained(out, dtype=torch.float32).eval()
    other = UniDiffForBlockDiffusion.from_pretrained(merged).eval()
    torch.testing.assert_close(other(ids).logits, one(ids).logits, rtol=1e-5, atol=1e-5)
    again = run_command("merge", out, merged, checkpoint=None)
    assert again.code == 2
    assert "exists" in again.err


def test_tasks_are_measured_with_and_without_an_adapter(run_command, tmp_path):
    out = tmp_path / "adapter"
    assert run_command(*LINE, "--out", out).code == 0
    report = run_command("eval", "colours", "--adapter", out, "--limit", 2, "--json").report
    assert [one["model"] for one in report["tasks"]] == ["base", "adapter"]


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [(Shapes, "is_in_base", False), (Colours, "replaces", frozenset({"shapes"}))],
)
def test_what_the_base_does_not_know_or_shall_say_otherwise_is_not_retained(
    run_command, tmp_path, monkeypatch, owner, name, value
):
    monkeypatch.setattr(owner, name, value)
    line = (*LINE, "--out", tmp_path / "adapter", "--retain", 1)
    refused = run_command(*line)
    assert refused.code == 2
    assert "--retain-task" in refused.err
    named = run_command(*line, "--retain-task", "shapes", "--json")
    assert named.report["settings"]["retain"][0] == 1.0


def test_a_users_data_set_with_bad_pictures(run_command, tmp_path):
    rows = []
    for number in range(5):
        Image.new("RGB", (8, 8), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "answer": "red"})
    (tmp_path / "2.png").write_text("no picture")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = (*LINE, "--data", data, "--out", tmp_path / "adapter")
    refused = run_command(*line)
    assert refused.code == 2
    assert "1 of 5 pictures" in refused.err
    result = run_command(*line, "--skip-bad", "--json")
    assert result.code == 0, (result.err, result.exception)
    assert result.report["num_left_out"] == 1
    assert result.report["num_examples"] == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--task", "soup"), "no installed plugin has a task 'soup'"),
        (("--task", "colours", "--lora", "r=0"), "r >= 1"),
        (("--task", "colours", "--lora", "targets=soup"), "soup"),
        (("--task", "colours", "--data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--task", "colours", "--retain", 1, "--retain-task", "colours"), "other tasks"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_adapter(run_command, tmp_path, line, words):
    result = run_command("finetune", *line, "--out", tmp_path / "adapter")
    assert result.code == 2
    assert words in result.err
    assert not (tmp_path / "adapter").exists()


def test_a_folder_of_something_else_is_refused_before_training(run_command, tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    result = run_command(*LINE, "--out", tmp_path)
    assert result.code == 2
    assert "is no adapter folder" in result.err
    assert not tmp_path.with_name(f"{tmp_path.name}.run").exists()


def test_missing_columns_are_named(run_command, tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps({"picture": "a.png"}) + "\n")
    result = run_command(*LINE, "--data", tmp_path / "data.jsonl", "--out", tmp_path / "a")
    assert result.code == 2
    assert "lacks the columns ['answer', 'image']" in result.err
