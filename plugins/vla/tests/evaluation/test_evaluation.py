"""pytest plugins/vla/tests/evaluation: what is driven, what is kept, and what the numbers say."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner
from unidiff_vla.driving import EpisodeRecord, View
from unidiff_vla.environments.instructed_simulation import InstructedSimulation
from unidiff_vla.evaluation.cells import Cell, CellFolder
from unidiff_vla.evaluation.command import policy_key
from unidiff_vla.evaluation.measuring import Driver, measure_cells
from unidiff_vla.evaluation.plan import EvaluationPlan, reference_decoding
from unidiff_vla.evaluation.summary import compare, success_of
from unidiff_vla.policy import MaskedDiffusionPolicy

from unidiff.bundled import bundled_checkpoint
from unidiff.cli.app import app
from unidiff.evaluation.intervals import paired_difference, wilson_interval
from unidiff.plugins import EvaluationRequest

from ..toy_gym import Corridor


class Walker:
    """Always walks ahead."""

    num_executed, last_record, num_calls = 4, None, 0

    def predict_action_chunk(self, observations, *, seed):
        self.num_calls += 1
        return [[[1.0, 0.0]] * 4 for _ in observations]


def records(outcomes, error=None):
    return [
        EpisodeRecord(seed, "go", outcome, 10, 2, 8, 0.5, error)
        for seed, outcome in enumerate(outcomes)
    ]


def cells_of(**changes):
    facts = {
        "env": "toy/Corridor-v0",
        "wording": "known",
        "seed": 0,
        "num_episodes": 3,
        "split": "test",
        "fingerprint": "f",
        "settings": {"decoding": {}},
    }
    return Cell(**facts | changes)


def measured(policy, folder, cells, **broken):
    driver = Driver(policy, View(), 2, lambda name, split: Corridor(**broken))
    return measure_cells(driver, cells, CellFolder(folder), lambda *now: None, "all")


def test_the_defaults_are_three_seeds_of_fifty_layouts_in_every_wording():
    plan = EvaluationPlan.of(EvaluationRequest(seed=4))
    assert plan.seeds == (4, 5, 6)
    assert plan.num_episodes == 50
    assert plan.wordings == ("known", "held_out", "swapped")
    assert len(plan.envs) in (2, 6)


def test_settings_are_read():
    given = {
        "envs": "tabletop-reach, pusht,pusht",
        "wordings": "swapped",
        "seeds": "1",
        "replan_every": "4",
        "foresees": "true",
        "decoding": '{"max_denoising_steps": 2}',
        "reference": "one_token",
    }
    plan = EvaluationPlan.of(EvaluationRequest(limit=7, settings=given))
    assert plan.envs == ("tabletop-reach", "pusht")
    assert (plan.wordings, plan.seeds, plan.num_episodes) == (("swapped",), (0,), 7)
    assert (plan.replan_every, plan.decoding) == (4, {"max_denoising_steps": 2})
    assert plan.reference == "one_token"
    assert plan.foresees is True


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"envs": "juggling"}, "juggling"),
        ({"envs": ","}, "expected environments"),
        ({"wordings": "loud"}, "wordings among"),
        ({"seeds": "0"}, "seeds must be >= 1"),
        ({"seeds": "many"}, "seeds must be a whole number"),
        ({"foresees": "yes"}, "foresees must be true or false"),
        ({"planted": "x"}, "planted must be a whole number"),
        ({"baseline": "a", "reference": "one_token"}, "one comparison at a time"),
        ({"parallel": "0"}, "parallel must be >= 1"),
        ({"split": "validation"}, "a split of"),
        ({"decoding": "fast"}, "decoding must be a JSON object"),
        ({"reference": "[1]"}, "reference must be a JSON object"),
        ({"envs": "toy/Corridor-v0"}, "know no wordings"),
    ],
)
def test_a_bad_setting_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        EvaluationPlan.of(EvaluationRequest(settings=given))


def test_one_token_per_step_leaves_all_but_the_pace():
    ours = {"unmasking_strategy": "cosine", "max_denoising_steps": 4, "do_sample": True}
    found = reference_decoding("one_token", ours)
    assert found == {"unmasking_strategy": "static", "do_sample": True}
    assert reference_decoding({"max_denoising_steps": 1}, ours)["max_denoising_steps"] == 1
    in_order = {"unmasking_strategy": "sequential", "max_denoising_steps": 4}
    assert reference_decoding("one_token", in_order) == {"unmasking_strategy": "sequential"}


def test_layouts_of_two_seeds_are_different_ones():
    first, second = cells_of(), cells_of(seed=1)
    assert not set(first.layout_seeds) & set(second.layout_seeds)
    changed = [cells_of(fingerprint="g"), cells_of(settings={}), cells_of(num_episodes=4), second]
    assert len({cell.key for cell in [first, *changed]}) == 5


def test_a_finished_cell_is_not_driven_again(tmp_path):
    cells = [cells_of(), cells_of(seed=1)]
    policy = Walker()
    first = measured(policy, tmp_path / "cells", cells[:1])
    calls = policy.num_calls
    both = measured(policy, tmp_path / "cells", cells)
    assert both.episodes(seed=0) == [
        EpisodeRecord(**one.to_dict()) for one in first.episodes(seed=0)
    ]
    timed = len(both.latencies) + 2
    assert policy.num_calls - calls == calls  # the second cell and the timing
    assert calls > timed
    assert [one.seed for one in both.episodes(seed=1)] == [3, 4, 5]
    assert all(one.success for one in both.episodes())


def test_a_cell_that_broke_off_is_driven_again(tmp_path):
    cells = [cells_of()]
    broken = measured(Walker(), tmp_path, cells, breaks_at=2)
    assert success_of(broken.episodes())["num_errors"] == 1
    assert success_of(broken.episodes())["success"] == 2 / 3
    assert all(one.success for one in measured(Walker(), tmp_path, cells).episodes())


def test_a_damaged_cell_is_named(tmp_path):
    measured(Walker(), tmp_path, [cells_of()])
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        measured(Walker(), tmp_path, [cells_of()])


def test_success_has_its_wilson_interval():
    found = success_of(records([True] * 9 + [False]))
    assert found["success"] == 0.9
    assert found["interval"] == list(wilson_interval(9, 10))
    assert found["mean_steps"] == 10


def test_two_policies_are_compared_layout_by_layout():
    ours, others = [True, True, False, True], [True, False, True, True]
    found = compare(records(ours), records(others))
    bound = paired_difference([1, 1, 0, 1], [1, 0, 1, 1]).lower_bound
    assert found["difference"] == 0
    assert found["lower_bound"] == bound < 0
    assert found["num_pairs"] == 4
    with pytest.raises(ValueError, match="same layouts"):
        compare(records(ours), records(others)[1:])


def test_the_command_measures_compares_and_goes_on(tmp_path):
    out = tmp_path / "deep" / "report.json"
    line = ["eval", "vla", "--limit", "2", "--out", str(out), "--json"]
    for setting in ("envs=tabletop-reach", "seeds=1", "wordings=known,swapped"):
        line += ["--set", setting]
    result = CliRunner().invoke(app, [*line, "--set", "reference=one_token"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert json.loads(out.read_text()) == report
    assert report["mean_success"] == report["success"]["known"]["mean_success"] == 1.0
    assert report["success"]["swapped"]["mean_success"] == 0.0
    assert report["cost"]["forwards_per_chunk"] == 4
    assert report["cost"]["latency_ms"]["p95"] >= report["cost"]["latency_ms"]["median"] > 0
    assert report["comparison"]["cost"]["forwards_per_chunk"] == 16
    assert report["comparison"]["num_pairs"] == 2
    assert len(report["fingerprint"]) == 16
    assert "| tabletop-reach | 1.000 (0.342 to 1.000)" in out.with_suffix(".md").read_text()
    assert len(list(out.with_suffix(".cells").glob("*.json"))) == 3


def test_two_checkpoints_are_compared(tmp_path):
    out = tmp_path / "report.json"
    line = ["eval", "vla", "--limit", "2", "--out", str(out), "--json"]
    for setting in ("envs=tabletop-reach", "seeds=1", "wordings=known", "replan_every=4"):
        line += ["--set", setting]
    result = CliRunner().invoke(app, [*line, "--set", f"baseline={bundled_checkpoint()}"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["comparison"]
    assert found["checkpoint"] == str(bundled_checkpoint())
    assert found["num_pairs"] == 2
    assert found["cost"]["num_chunks"] < json.loads(result.stdout)["cost"]["num_chunks"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--set", "planted=2", "--set", "envs=tabletop-reach", "--limit", "1"), "revision"),
        (("--set", "speed=3"), "unknown settings ['speed']; there are envs:"),
        (("--set", "seeds"), "--set takes NAME=VALUE"),
        (("--adapter", "folder"), "give it as --checkpoint"),
        (("--metric", "success"), "a task has its own"),
        (("--set", "envs=pusht"), "no weights for pusht"),
    ],
)
def test_bad_input_is_one_line(line, words):
    result = CliRunner().invoke(app, ["eval", "vla", *line])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_episodes_that_break_off_are_said_after_the_report(tmp_path, monkeypatch):
    def broken(self, action):
        raise RuntimeError("the simulation has come apart")

    monkeypatch.setattr(InstructedSimulation, "execute", broken)
    out = tmp_path / "report.json"
    line = ["eval", "vla", "--limit", "1", "--out", str(out)]
    for setting in ("envs=tabletop-reach", "seeds=1", "wordings=known"):
        line += ["--set", setting]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2
    assert "1 episodes broke off" in result.stderr
    assert json.loads(out.read_text())["mean_success"] == 0.0


def test_what_decides_a_plan_is_in_its_fingerprint():
    policy = MaskedDiffusionPolicy.from_pretrained(bundled_checkpoint())
    first = policy_key(policy)
    assert policy_key(MaskedDiffusionPolicy.from_pretrained(bundled_checkpoint())) == first
    bins = policy.processor.action_bins
    policy.processor.action_bins = replace(bins, high=tuple(2 * one for one in bins.high))
    assert policy_key(policy) != first
    policy.processor.action_bins = bins
    with torch.no_grad():
        next(policy.processor.image_tokenizer.parameters()).mul_(2)
    assert policy_key(policy) != first
