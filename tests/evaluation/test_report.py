"""A report says whether a number is good enough, and turns into JSON."""

import json

import numpy as np
import pytest

from unidiff.evaluation.report import Goal, Measurement, MetricReport, SuiteReport


def report(value, goal, **fields):
    measurement = Measurement("accuracy", value, 10, (0.1, 0.9), **fields)
    return MetricReport(measurement, goal, {"temperature": 1.0}, 0, 1.0, 1.0, 20, 2.0, 3.5)


@pytest.mark.parametrize(
    ("value", "passes", "reaches"), [(0.84, False, False), (0.85, True, False), (0.9, True, True)]
)
def test_a_higher_is_better_number_passes_at_its_floor(value, passes, reaches):
    found = report(value, Goal(aim=0.9, floor=0.85))
    assert (found.passes, found.reaches_aim) == (passes, reaches)


@pytest.mark.parametrize(
    ("value", "passes", "reaches"), [(3.1, False, False), (2.9, True, False), (2.4, True, True)]
)
def test_a_measured_aim_replaces_the_suites(value, passes, reaches):
    found = report(value, Goal(aim=3.0, floor=3.0, better="lower"), aim=2.5)
    assert (found.passes, found.reaches_aim) == (passes, reaches)
    assert found.to_dict()["aim"] == 2.5


def test_a_broken_condition_fails_a_good_number():
    found = report(1.0, Goal(0.9, 0.8), conditions={"swapped": np.bool_(False)})
    assert not found.passes
    assert not found.reaches_aim


def test_a_number_without_a_goal_passes():
    assert report(0.0, None).passes


def test_a_goal_knows_two_directions_only():
    with pytest.raises(ValueError, match="higher"):
        Goal(1.0, 1.0, better="upwards")


def test_a_suite_report_is_json_even_with_numpy_in_it():
    details = {"by_class": {np.int64(3): np.float32(0.5)}, "interval": (np.float64(0.25), 1)}
    one = report(np.float64(0.9), Goal(0.9, 0.8), details=details)
    suite = SuiteReport("bundled", 0, 5, (one,), {"threads": 1}, 2.0)
    found = json.loads(json.dumps(suite.to_dict()))
    assert found["passes"] is True
    metric = found["metrics"]["accuracy"]
    assert metric["details"] == {"by_class": {"3": 0.5}, "interval": [0.25, 1]}
    standing_beside = {
        "seed",
        "sampler",
        "num_inputs",
        "seconds",
        "cpu_seconds",
        "num_forwards",
        "interval",
    }
    assert standing_beside <= set(metric)
    assert suite["accuracy"] is one
    with pytest.raises(KeyError):
        suite["other"]
