"""Timings become ratios and medians by known answers."""

import json
from dataclasses import asdict, replace

import pytest

from unidiff.evaluation.decode_report import (
    Ratio,
    Timing,
    build_report,
    ratios_of,
    summarise_contestant,
    summarise_ratio,
)
from unidiff.evaluation.decode_setup import DecodeSetup, load_goals
from unidiff.evaluation.load_guard import Load
from unidiff.evaluation.report import Goal

SETUP = DecodeSetup.preset("tiny")
CALM = Load(0.5, 1.0, 0.0, 0.0, True)
BUSY = Load(9.0, 2.0, 0.5, 5.0, False)
FASTER = Ratio("faster", "ours", "theirs")


def timing(seconds, prefill=0.0, tokens=100, forward=None, load=CALM, skipped=0):
    return Timing(seconds, prefill, tokens, tokens - skipped, 7, forward, load)


def test_the_rate_leaves_out_the_prefill_and_its_tokens():
    one = timing(3.0, prefill=1.0, skipped=4)
    assert one.rate == 48.0
    assert one.end_to_end_rate == pytest.approx(100 / 3)


def test_the_overhead_is_what_lies_outside_the_forwards():
    assert timing(3.0, prefill=1.0, forward=2.9).loop_overhead == pytest.approx(0.05)
    assert timing(3.0).loop_overhead is None


def test_a_ratio_is_formed_inside_a_round():
    # Medians of the rates alone would give 1: both sides have 25, 50 and 100 tokens per second.
    rounds = [
        {"ours": timing(1.0), "theirs": timing(4.0)},
        {"ours": timing(2.0), "theirs": timing(1.0)},
        {"ours": timing(4.0), "theirs": timing(2.0)},
    ]
    summary = summarise_ratio(FASTER, rounds, 1, None)
    assert summary["pairs"] == [4.0, 0.5, 0.5]
    assert summary["value"] == 0.5


def test_the_median_is_over_calm_pairs_where_there_are_enough():
    rounds = [
        {"ours": timing(1.0), "theirs": timing(2.0)},
        {"ours": timing(1.0, load=BUSY), "theirs": timing(9.0)},
        {"ours": timing(1.0), "theirs": timing(8.0, load=BUSY)},
    ]
    enough = summarise_ratio(FASTER, rounds, 1, None)
    assert (enough["value"], enough["num_calm"], enough["is_calm"]) == (2.0, 1, True)
    too_few = summarise_ratio(FASTER, rounds, 2, None)
    assert (too_few["value"], too_few["is_calm"]) == (8.0, False)


def test_a_round_without_a_contestant_gives_no_pair():
    rounds = [{"ours": timing(1.0)}, {"ours": timing(1.0), "theirs": timing(3.0)}]
    assert summarise_ratio(FASTER, rounds, 5, None)["pairs"] == [3.0]
    assert summarise_ratio(FASTER, rounds[:1], 5, None) is None


@pytest.mark.parametrize(
    ("value", "passes", "reaches"), [(0.06, False, False), (0.05, True, False), (0.03, True, True)]
)
def test_a_lower_overhead_is_better(value, passes, reaches):
    rounds = [{"ours": timing(1.0, forward=1.0 - value)}]
    goal = Goal(aim=0.03 + 1e-9, floor=0.05 + 1e-9, better="lower")
    summary = summarise_ratio(Ratio("loop_overhead", "ours", None), rounds, 1, goal)
    assert summary["value"] == pytest.approx(value)
    assert (summary["passes"], summary["reaches_aim"]) == (passes, reaches)
    assert "end_to_end" not in summary


def test_the_end_to_end_ratio_counts_the_prefill():
    rounds = [{"ours": timing(2.0, prefill=1.0), "theirs": timing(4.0, prefill=1.0)}]
    summary = summarise_ratio(FASTER, rounds, 1, None)
    assert (summary["value"], summary["end_to_end"]) == (3.0, 2.0)


def test_a_contestant_is_described_by_medians():
    found = summarise_contestant([timing(s, forward=0.9 * s) for s in (1.0, 2.0, 10.0)])
    assert found["tokens_per_second"] == 50.0
    assert found["loop_overhead"] == pytest.approx(0.1)
    assert (found["num_timings"], found["num_calm"], found["num_forwards"]) == (3, 3, 7)


def test_every_goal_belongs_to_a_ratio_of_the_standard_setup():
    names = [ratio.name for ratio in ratios_of(DecodeSetup.preset("standard"))]
    assert set(load_goals("decode")) <= set(names)
    assert len(names) == len(set(names))


def test_the_goals_are_those_of_the_issue():
    goals = {name: (goal.floor, goal.aim) for name, goal in load_goals("decode").items()}
    assert goals == {
        "vs_ar_s4": (5.0, 7.5),
        "vs_ar_s8": (2.7, 4.0),
        "vs_own_ar_s4": (2.9, 3.2),
        "vs_diffusion_gemma_b1": (2.3, 3.5),
        "vs_diffusion_gemma_b4": (1.7, 3.0),
        "vs_uncached_s4": (14.0, 22.0),
        "fused_vs_separate_s4": (1.03, 1.08),
        "loop_overhead": (0.05, 0.03),
    }
    assert load_goals("decode")["loop_overhead"].better == "lower"


def test_a_report_passes_when_every_judged_ratio_does():
    one = {"unidiff_s4": timing(1.0, forward=1.0), "transformers_ar": timing(6.0)}
    goals = load_goals("decode")
    report = build_report(SETUP, [one], 1, goals, {"unidiff_s4": {"batch": 1}})
    assert report["passes"]
    assert set(report["ratios"]) == {"vs_ar_s4", "loop_overhead"}
    assert not report["ratios"]["vs_ar_s4"]["reaches_aim"]
    slower = {**one, "transformers_ar": timing(4.0)}
    assert not build_report(SETUP, [slower], 1, goals, {})["passes"]
    assert not build_report(SETUP, [], 1, goals, {})["passes"]


def test_timings_survive_json():
    one = timing(3.0, prefill=1.0, forward=2.5, load=BUSY)
    assert Timing.from_dict(json.loads(json.dumps(asdict(one)))) == one
    assert DecodeSetup.from_dict(json.loads(json.dumps(asdict(SETUP)))) == SETUP


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("new_tokens", 1, "new_tokens must be >= 2"),
        ("steps", (9,), "steps must be <= block_length=8, got 9"),
        ("steps", (), "at least one number"),
        ("batches", (0,), "batches must be >= 1, got 0"),
        ("threads", 0, "threads must be >= 1, got 0"),
        ("dtype", "int8", "dtype must be one of"),
    ],
)
def test_an_impossible_setup_is_an_error(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(SETUP, **{field: value})
