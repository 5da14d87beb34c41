"""Sweeps: which cells there are, that none is measured twice, and what the rows say."""

import json

import numpy as np
import pytest
from PIL import Image

from unidiff.evaluation.responder import Usage
from unidiff.evaluation.suite import load_suite
from unidiff.evaluation.tradeoff import (
    DEFAULT,
    REFERENCE,
    Cell,
    CellStore,
    Measured,
    Plan,
    load_sweep,
    plan_sweep,
    run_sweep,
)
from unidiff.evaluation.tradeoff_report import draw_tradeoff, markdown_table, summarise
from unidiff.evaluation.tradeoff_tasks import TASKS, Scores
from unidiff.generation.option_checks import check_option
from unidiff.generation.options import OPTIONS, UNMASKING_STRATEGIES

NUM_TOKENS = 8


def scripted_task(context, settings, number):
    """Right but for the first inputs, as many as the setting's steps say; costs its steps."""
    steps = settings["sampler"].get("max_denoising_steps", NUM_TOKENS)
    context.responder.calls += 1
    context.responder.usage.num_forwards += steps * number
    context.responder.usage.num_tokens += NUM_TOKENS * number
    context.responder.usage.num_requests += number
    right = np.ones(number)
    right[: max(0, 4 - steps)] = 0.0
    return Scores({"is_right": right}, {"seed": context.seed})


class CountingResponder:
    def __init__(self):
        self.calls = 0
        self.usage = Usage()


@pytest.fixture
def sweep(monkeypatch):
    """Two settings of one task, whose default takes two steps."""
    monkeypatch.setitem(TASKS, "captions", scripted_task)
    suite = {"captions": {"sampler": {"unmasking_strategy": "static", "max_denoising_steps": 2}}}
    monkeypatch.setattr("unidiff.evaluation.tradeoff.load_suite", lambda _: suite)
    return {
        "suite": "bundled",
        "margin_points": 1.0,
        "seed_explored": 17,
        "seed_confirmed": 0,
        "captions": {
            "num_explored": 10,
            "num_confirmed": 2000,
            "least_tokens_per_forward": 2.5,
            "milliseconds": {"reference": 60, "default": 30},
            "reference": {"unmasking_strategy": "static"},
            "strategies": {"static": [{"max_denoising_steps": 4}, {"max_denoising_steps": 1}]},
        },
    }


def run(sweep, folder, checkpoint="abc", **choices):
    responder = CountingResponder()
    plan = Plan(sweep, ("captions",), **choices)
    found = run_sweep(None, None, checkpoint, folder, plan, responder=responder)
    return found, responder.calls


def test_the_bundled_sweep_tries_every_strategy_on_every_task():
    sweep = load_sweep()
    assert set(TASKS) <= set(sweep)
    for task in TASKS:
        assert set(sweep[task]["strategies"]) == set(UNMASKING_STRATEGIES)
        assert sweep[task]["num_confirmed"] >= 2000


def test_every_option_of_the_bundled_sweep_is_possible():
    for cell in plan_sweep().cells("x"):
        assert set(cell.options) <= {*OPTIONS, "batch_size"}
        for name, value in cell.options.items():
            if name != "batch_size":
                check_option(name, value)


def test_a_reference_takes_as_many_steps_as_there_are_tokens_and_else_the_defaults_options():
    for task in TASKS:
        cells = plan_sweep([task], confirms=True).cells("x")
        reference, default = (cell for cell in cells if cell.sampling == 0)
        assert (reference.label, default.label) == (REFERENCE, DEFAULT)
        assert dict(default.options) == load_suite("bundled")[task]["sampler"]
        assert reference.options.get("max_denoising_steps", 64) >= 64
        kept = {"guidance_scale", "temperature", "block_length", "max_new_tokens", "do_sample"}
        for name in kept & set(default.options):
            assert reference.options[name] == default.options[name]


def test_a_reference_inherits_nothing_of_its_tasks_pace(sweep):
    pace = {"final_entropy_bound": 5.0, "entropy_bound": 2.0, "guidance_refresh": 2}
    suite = {"captions": {"sampler": {**pace, "guidance_scale": 1.4}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unidiff.evaluation.tradeoff.load_suite", lambda _: suite)
        reference, default, *others = Plan(sweep, ("captions",)).cells("x")
    assert default.options.keys() > pace.keys()
    for cell in (reference, *others):
        assert cell.options.keys().isdisjoint(pace)
        assert cell.options["guidance_scale"] == 1.4


def test_confirming_takes_other_inputs_than_exploring():
    explored = plan_sweep(["captions"]).cells("x")
    confirmed = plan_sweep(["captions"], confirms=True).cells("x")
    assert {cell.seed for cell in explored}.isdisjoint({cell.seed for cell in confirmed})
    assert {cell.num_inputs for cell in confirmed} == {2000}


def test_a_cell_is_measured_once(sweep, tmp_path):
    first, calls = run(sweep, tmp_path)
    assert calls == 4  # reference, default, four steps and one
    again, calls = run(sweep, tmp_path)
    assert calls == 0
    for (_, one), (_, other) in zip(first, again, strict=True):
        assert one.scores["is_right"].tolist() == other.scores["is_right"].tolist()
        assert one.num_forwards == other.num_forwards


def test_inputs_may_be_sampled_several_times(sweep, tmp_path, monkeypatch):
    """Each sampling is a cell with its own seed of decoding; scores of an input are averaged."""
    seeds = []

    def sampled(context, settings, number):
        found = scripted_task(context, settings, number)
        seeds.append((context.seed, context.sampling_seed))
        return Scores({"is_right": found.by_name["is_right"] * (len(seeds) % 2)})

    monkeypatch.setitem(TASKS, "captions", sampled)
    sweep["captions"]["num_samplings"] = 2
    found, calls = run(sweep, tmp_path, confirms=True, limit=6)
    assert calls == 4
    assert {seed for seed, _ in seeds} == {0}
    assert seeds[0] == (0, 0)
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    assert [cell.label for cell, _ in found] == [REFERENCE, DEFAULT]
    for _, measured in found:
        assert set(measured.scores["is_right"]) <= {0.0, 0.5}
        assert measured.num_samplings == 2
    assert found[0][1].num_forwards == 2 * 6 * NUM_TOKENS
    assert run(sweep, tmp_path, confirms=True, limit=6)[1] == 0
    assert run(sweep, tmp_path, limit=6)[1] == 4  # exploring samples once
    (row, _) = summarise(sweep, found)
    assert row["num_samplings"] == 2
    assert "6 inputs, each sampled 2 times" in markdown_table([row])


def test_another_checkpoint_number_or_setting_is_another_cell(sweep, tmp_path):
    run(sweep, tmp_path)
    assert run(sweep, tmp_path, checkpoint="other")[1] == 4
    assert run(sweep, tmp_path, limit=5)[1] == 4
    assert run(sweep, tmp_path, confirms=True, limit=5)[1] == 2
    sweep["captions"]["strategies"]["static"].append({"max_denoising_steps": 3})
    assert run(sweep, tmp_path)[1] == 1


def test_an_interrupted_sweep_keeps_what_it_has(sweep, tmp_path, monkeypatch):
    def interrupted(context, settings, number):
        if settings["sampler"].get("max_denoising_steps") == 4:
            raise KeyboardInterrupt
        return scripted_task(context, settings, number)

    with monkeypatch.context() as patch:
        patch.setitem(TASKS, "captions", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(sweep, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert run(sweep, tmp_path)[1] == 2


def test_rows_compare_each_cell_with_the_reference_input_by_input(sweep, tmp_path):
    found, _ = run(sweep, tmp_path)
    rows = summarise(sweep, found)
    by_steps = {row["sampler"].get("max_denoising_steps"): row for row in rows}
    assert by_steps[None]["label"] == REFERENCE
    assert by_steps[None]["tokens_per_forward"] == 1.0
    assert by_steps[1]["tokens_per_forward"] == 8.0
    assert by_steps[1]["scores"]["is_right"]["mean"] == 0.7
    assert by_steps[1]["scores"]["is_right"]["difference_points"] == pytest.approx(-30.0)
    assert by_steps[4]["scores"]["is_right"]["difference_points"] == 0.0
    assert all(row["seed"] == 17 and row["details"]["seed"] == 17 for row in rows)


def test_a_setting_is_good_where_it_keeps_up_and_is_fast(sweep, tmp_path):
    found, _ = run(sweep, tmp_path, confirms=True)
    reference, default = summarise(sweep, found)
    assert (reference["keeps_up"], reference["is_fast"]) == (True, False)
    # Two of 2,000 inputs lost: 0.1 points, with a bound that stays above one point.
    assert (default["keeps_up"], default["is_fast"]) == (True, True)
    small, _ = run(sweep, tmp_path / "few", confirms=True, limit=100)
    assert not summarise(sweep, small)[1]["keeps_up"]


def test_one_word_answers_are_fast_in_one_forward_only(sweep, tmp_path):
    del sweep["captions"]["least_tokens_per_forward"]
    sweep["captions"]["most_forwards"] = 1.0
    found, _ = run(sweep, tmp_path)
    rows = summarise(sweep, found)
    assert [row["is_fast"] for row in rows] == [False, False, False, True]


def test_every_score_must_keep_up(sweep):
    cell = Cell("captions", DEFAULT, {"unmasking_strategy": "static"}, 2000, 0, "x")
    good, bad = np.ones(2000), np.ones(2000)
    bad[:100] = 0.0
    one = Measured({"a": good, "b": good}, {}, 10, 100.0, 10, 0.0)
    other = Measured({"a": good, "b": bad}, {}, 10, 100.0, 10, 0.0)
    reference = Cell("captions", REFERENCE, {"unmasking_strategy": "random"}, 2000, 0, "x")
    rows = summarise(sweep, [(reference, one), (cell, other)])
    assert [row["keeps_up"] for row in rows] == [True, False]


def test_the_estimate_counts_references_and_settings(sweep):
    plan = Plan(sweep, ("captions",), confirms=True)
    assert plan.minutes() == pytest.approx(2000 * (60 + 30) / 60_000)


def test_the_table_and_the_plot_hold_every_row(sweep, tmp_path):
    found, _ = run(sweep, tmp_path / "cells")
    rows = summarise(sweep, found)
    table = markdown_table(rows)
    assert table.count("\n| static |") == 2
    assert "**one token per step** (static)" in table
    assert "| max_denoising_steps=1 | 8.00 | 1.00 | 0.7000 (-30.00, " in table
    draw_tradeoff(rows, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width > 300
    json.dumps(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["poetry"]}, "tasks must be among"),
        ({"tasks": []}, "tasks must be among"),
        ({"limit": 0}, "limit must be >= 1"),
    ],
)
def test_impossible_plans_say_what_is_possible(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_sweep(**arguments)


def test_an_unknown_sweep_is_an_error():
    with pytest.raises(ValueError, match="sweep must be one of"):
        load_sweep("other")


def test_a_damaged_file_of_another_name_is_no_cell(tmp_path):
    cell = Cell("captions", DEFAULT, {}, 1, 0, "x")
    (tmp_path / f"{cell.key}.1.tmp").write_text("{")
    assert CellStore(tmp_path).get(cell) is None
