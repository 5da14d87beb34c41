"""The decode benchmark on a tiny model: every ratio, rounds in turn, interruption, resumption."""

import contextlib
import json

import pytest
import torch

from unidiff.evaluation import decode_benchmark
from unidiff.evaluation.decode_benchmark import (
    Schedule,
    check_complete,
    chosen_contestants,
    run_decode_benchmark,
    time_contestant,
    turned,
)
from unidiff.evaluation.decode_contestants import (
    Contestant,
    Decoded,
    build_contestants,
    contestant_names,
    timed_forwards,
)
from unidiff.evaluation.decode_plot import draw_decode_report
from unidiff.evaluation.decode_report import ratios_of
from unidiff.evaluation.decode_setup import DecodeSetup, load_benchmark
from unidiff.evaluation.load_guard import LoadGuard
from unidiff.evaluation.memory_benchmark import memory_modes
from unidiff.model.denoiser import ModelDenoiser

SETUP = DecodeSetup.preset("tiny")
ONCE = Schedule(rounds=1, max_rounds=1)
TWO = Schedule(rounds=1, max_rounds=1, only=("vs_own_ar_s4",))


@pytest.fixture
def guard():
    return LoadGuard(patience=0)


@pytest.fixture(scope="module")
def whole():
    """The report of one round of everything."""
    return run_decode_benchmark(SETUP, ONCE, guard=LoadGuard(patience=0))


def test_one_round_yields_every_ratio(whole):
    assert list(whole["ratios"]) == [ratio.name for ratio in ratios_of(SETUP)]
    assert all(ratio["value"] > 0 for ratio in whole["ratios"].values())
    assert set(whole["contestants"]) == set(contestant_names(SETUP))
    assert 0 < whole["ratios"]["loop_overhead"]["value"] < 1


def test_the_report_says_what_was_measured_where(whole):
    text = json.dumps(whole)
    assert json.loads(text)["setup"]["seed"] == 0
    assert whole["environment"]["torch"] == torch.__version__
    assert whole["contestants"]["unidiff_s4"]["settings"]["max_denoising_steps"] == 4
    for timing in whole["rounds"][0].values():
        assert timing["seconds"] > timing["prefill_seconds"] >= 0
        assert timing["load"]["slowdown"] >= 1


def test_tokens_of_the_prefill_do_not_count(whole):
    first = whole["rounds"][0]
    assert first["unidiff_s4"]["num_tokens_after_prefill"] == 16
    assert first["unidiff_ar"]["num_tokens_after_prefill"] == 15
    assert first["transformers_ar"]["num_tokens_after_prefill"] == 15
    assert first["unidiff_s4_b4"]["num_tokens"] == 64


def test_only_what_a_ratio_needs_is_run(guard):
    report = run_decode_benchmark(SETUP, TWO, guard=guard)
    assert set(report["contestants"]) == {"unidiff_s4", "unidiff_ar"}
    assert {"vs_own_ar_s4", "loop_overhead"} == set(report["ratios"])


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"unknown names \['vs_all'\]"):
        chosen_contestants(SETUP, ["vs_all", "vs_ar_s4"])


def test_the_order_turns_from_round_to_round():
    assert [turned("abc", by) for by in range(4)] == [list(s) for s in ("abc", "bca", "cab", "abc")]


def test_an_interrupted_run_keeps_its_rounds_and_goes_on(guard, tmp_path):
    def stop(done, name):
        if done == 2:
            raise KeyboardInterrupt

    schedule = Schedule(rounds=4, max_rounds=4, only=("vs_own_ar_s4",))
    with pytest.raises(KeyboardInterrupt) as stopped:
        run_decode_benchmark(SETUP, schedule, guard=guard, out=tmp_path, progress=stop)
    kept = json.loads((tmp_path / "decode.json").read_text())
    assert kept["num_rounds"] == stopped.value.args[0]["num_rounds"] == 2
    seen = []
    report = run_decode_benchmark(
        SETUP,
        schedule,
        guard=guard,
        out=tmp_path,
        resumes=True,
        progress=lambda done, name: seen.append(done),
    )
    assert report["num_rounds"] == 4
    assert set(seen) == {2, 3}
    assert report["rounds"][:2] == kept["rounds"]


def test_another_setup_does_not_go_on(guard, tmp_path):
    run_decode_benchmark(SETUP, TWO, guard=guard, out=tmp_path)
    other = DecodeSetup.preset("tiny", seed=1)
    with pytest.raises(ValueError, match="is of another setup"):
        run_decode_benchmark(other, TWO, guard=guard, out=tmp_path, resumes=True)
    with pytest.raises(ValueError, match="--resume needs --out"):
        run_decode_benchmark(SETUP, TWO, guard=guard, resumes=True)


def test_rounds_go_on_while_the_machine_is_busy(monkeypatch, guard):
    monkeypatch.setattr(guard, "is_calm", lambda *readings: False)
    schedule = Schedule(rounds=1, only=("unidiff_s4",))
    assert run_decode_benchmark(SETUP, schedule, guard=guard)["num_rounds"] == 2
    monkeypatch.setattr(guard, "is_calm", lambda *readings: True)
    assert run_decode_benchmark(SETUP, schedule, guard=guard)["num_rounds"] == 1


def test_missing_tokens_are_an_error():
    contestant = build_contestants(SETUP, ["unidiff_s4"])[0]
    with pytest.raises(RuntimeError, match="would not be that of the same work"):
        check_complete(contestant, Decoded(torch.zeros(1, 27)), SETUP)


def test_a_prefill_that_seems_longer_than_everything_is_measured_again(monkeypatch):
    contestant = Contestant(
        name="fake",
        what="",
        batch=1,
        run=lambda: Decoded(torch.zeros(1, 28), 3),
        prefill=lambda: None,
        tokens_of_prefill=0,
        settings={},
        num_parameters=0,
    )
    found = iter([5.0, 5.0, 5.0, 4.0, 1.0, 2.0, 1.5, 4.0])
    guard = LoadGuard(patience=0)
    load = guard.measure(lambda: None)[2]
    monkeypatch.setattr(guard, "measure", lambda run: (run(), next(found), load))
    timing = time_contestant(contestant, SETUP, guard)
    assert (timing.seconds, timing.prefill_seconds, timing.num_forwards) == (4.0, 1.5, 3)
    monkeypatch.setattr(guard, "measure", lambda run: (run(), 1.0, load))
    with pytest.raises(RuntimeError, match="calmer machine"):
        time_contestant(contestant, SETUP, guard)


def test_forwards_are_timed_only_while_asked():
    before = ModelDenoiser.probe
    contestant = build_contestants(SETUP, ["unidiff_s4"])[0]
    with timed_forwards() as seconds:
        decoded = contestant.run()
    assert len(seconds) == decoded.num_forwards == 8
    assert all(value > 0 for value in seconds)
    assert ModelDenoiser.probe is before


def test_the_threads_are_given_back(whole):
    assert torch.get_num_threads() == 1
    with contextlib.suppress(RuntimeError), decode_benchmark.torch_threads(2):
        assert torch.get_num_threads() == 2
        raise RuntimeError
    assert torch.get_num_threads() == 1


def test_the_picture_shows_a_report(whole, tmp_path):
    draw_decode_report(whole, tmp_path / "deep" / "decode.png")
    assert (tmp_path / "deep" / "decode.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="no finished round"):
        draw_decode_report({**whole, "num_rounds": 0}, tmp_path / "none.png")


@pytest.mark.parametrize(("rounds", "last"), [(0, None), (5, 4)])
def test_an_impossible_schedule_is_an_error(rounds, last):
    with pytest.raises(ValueError, match="rounds must be >="):
        Schedule(rounds, last)


def test_an_unknown_benchmark_is_an_error():
    with pytest.raises(ValueError, match=r"benchmark must be one of \['decode', 'memory'"):
        load_benchmark("nothing")
    assert memory_modes() == ["greedy", "sampled"]
