"""`unidiff trace`: a picture of the order in which tokens were revealed."""

from typing import get_type_hints

from PIL import Image

from unidiff.cli.options import Decoding
from unidiff.generation.options import CONFIDENCE_METRICS, UNMASKING_STRATEGIES


def test_a_text_is_traced(run_command, tmp_path):
    out = tmp_path / "order.png"
    line = ("trace", "import os", "--max-new-tokens", 8, "--strategy", "sequential")
    report = run_command(*line, "--out", out, "--json").report
    trace = report["trace"]
    assert trace["index"] == list(range(len(trace["index"])))
    assert trace["step"] == sorted(trace["step"])
    assert max(trace["step"]) == report["num_forwards"]
    assert all(0 <= value <= 1 for value in trace["confidence"])
    assert Image.open(out).width > 200


def test_a_drawing_is_traced_on_its_grid(run_command, tmp_path):
    out = tmp_path / "order.png"
    report = run_command("trace", "draw a bag.", "--draw", "--out", out, "--steps", 4, "--json")
    trace = report.report["trace"]
    assert sorted(trace["index"]) == list(range(64))
    assert len(set(trace["step"])) == 4
    assert Image.open(out).width > 200


def test_nothing_to_trace_is_an_error(run_command, tmp_path):
    result = run_command("trace", "x", "--max-new-tokens", 0, "--out", tmp_path / "a.png")
    assert result.code == 2
    assert "nothing was revealed" in result.err


def test_the_help_names_every_strategy_and_metric():
    hints = get_type_hints(Decoding, include_extras=True)
    told = {name: hint.__metadata__[0].help for name, hint in hints.items()}
    assert all(name in told["strategy"] for name in UNMASKING_STRATEGIES)
    assert all(name in told["metric"] for name in CONFIDENCE_METRICS)
