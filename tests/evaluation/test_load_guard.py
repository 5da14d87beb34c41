"""The guard says of each timing whether the machine was calm."""

import time

import pytest

from unidiff.evaluation import load_guard
from unidiff.evaluation.load_guard import Load, LoadGuard, describe_machine, worse


def test_a_call_is_timed_and_its_result_returned():
    result, seconds, load = LoadGuard(patience=0).measure(lambda: time.sleep(0.05) or "done")
    assert result == "done"
    assert seconds >= 0.05
    assert load.slowdown >= 1.0


@pytest.mark.parametrize(
    ("average", "slowdown", "foreign", "calm"),
    [
        (0.0, 1.0, 0.0, True),
        (99.0, 1.35, 0.15, True),  # a known share says more than the average
        (0.0, 1.36, 0.0, False),
        (0.0, 1.0, 0.16, False),
        (99.0, 1.0, None, False),
        (0.5, 1.0, None, True),
        (None, 1.0, None, True),
    ],
)
def test_calm_is_neither_slow_nor_shared(average, slowdown, foreign, calm):
    assert LoadGuard().is_calm(average, slowdown, foreign) == calm


def test_it_waits_for_a_calm_moment(monkeypatch):
    guard = LoadGuard(patience=30)
    readings = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(guard, "calibrate", lambda: next(readings))
    monkeypatch.setattr(load_guard.time, "sleep", lambda seconds: None)
    _, _, load = guard.measure(lambda: None)
    assert load.slowdown == 1.0


def test_it_does_not_wait_beyond_its_patience(monkeypatch):
    guard = LoadGuard(patience=0)
    monkeypatch.setattr(guard, "calibrate", lambda: 3.0)
    _, _, load = guard.measure(lambda: None)
    assert (load.slowdown, load.is_calm) == (3.0, False)


def test_others_share_is_the_machines_work_less_ours(monkeypatch):
    busy, own = iter([100.0, 103.0]), iter([10.0, 12.0])
    monkeypatch.setattr(load_guard, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(load_guard.time, "process_time", lambda: next(own))
    monkeypatch.setattr(load_guard.os, "cpu_count", lambda: 2)
    before = load_guard._busy_seconds(), load_guard.time.process_time()
    assert load_guard._foreign_share(*before, seconds=2.0) == 0.25


def test_two_loads_join_to_the_worse_one():
    calm, busy = Load(1.0, 1.0, None, 0.5, True), Load(2.0, 1.2, 0.3, 0.5, False)
    joined = worse(calm, busy)
    assert joined == worse(busy, calm) or joined.load_average == 2.0
    assert (joined.slowdown, joined.foreign_share, joined.waited) == (1.2, 0.3, 1.0)
    assert not joined.is_calm


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine["processor"]
    assert machine["num_processors"] >= 1
