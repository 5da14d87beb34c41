"""Measuring a task: every metric, its interval, and the cost."""

import numpy as np
import pytest

from unidiff.evaluation import tasks
from unidiff.evaluation.tasks import measure_task, task_table
from unidiff.plugins import Answer, ChatTask


class Echo(ChatTask):
    """A task whose answers the test gives."""

    name, summary = "echo", "Says it again."
    modalities, columns = frozenset({"text"}), {"said": "what was said"}
    decoding = {"max_new_tokens": 3}

    def metrics(self):
        return {
            "equal": lambda results, examples: np.array(
                [float(r == e["said"]) for r, e in zip(results, examples, strict=True)]
            ),
            "length": lambda results, examples: np.array([len(r) / 2 for r in results]),
            "corpus": lambda results, examples: 0.25,
        }


@pytest.fixture
def report(monkeypatch):
    answers = [Answer("a", 2, 1.5, 0.1, "stop", 0), Answer("bb", 4, 1.0, 0.1, "stop", 1)]
    monkeypatch.setattr(tasks, "answer_examples", lambda *args, **kwargs: answers)
    return measure_task(Echo(), None, None, [{"said": "a"}, {"said": "b"}], seed=7)


def test_scores_of_zero_and_one_get_wilsons_interval(report):
    equal = report.metrics["equal"]
    assert equal.value == 0.5
    assert equal.interval == pytest.approx((0.0945, 0.9055), abs=1e-3)


def test_other_scores_get_the_interval_of_a_mean(report):
    length = report.metrics["length"]
    assert length.value == 0.75
    assert length.interval == pytest.approx((0.75 - 0.49, 0.75 + 0.49), abs=1e-2)


def test_a_number_of_all_examples_has_no_interval(report):
    assert report.metrics["corpus"].interval is None
    assert report.metrics["corpus"].value == 0.25


def test_the_cost_counts_all_forwards(report):
    assert report.tokens_per_forward == pytest.approx(7 / 6)
    assert report.forwards_per_example == 3.0


def test_the_table_has_a_line_for_each_metric_with_settings_and_seed(report):
    lines = task_table([report]).splitlines()
    assert len(lines) == 2 + 3
    assert "| `equal` | 0.500 (0.095 to 0.905) | 2 |" in lines[2]
    assert "max_new_tokens=3 | 7 |" in lines[2]
    assert "| `corpus` | 0.250 | 2 |" in lines[4]


def test_no_examples_is_an_error():
    with pytest.raises(ValueError, match="0 examples"):
        measure_task(Echo(), None, None, [])
