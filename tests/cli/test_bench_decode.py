"""`unidiff bench decode` and `unidiff bench memory` as a user calls them."""

import json

import pytest
from PIL import Image

from unidiff.evaluation import decode_benchmark, memory_benchmark

TINY = ("bench", "decode", "--tiny", "--rounds", 1, "--max-rounds", 1, "--patience", 0)


@pytest.fixture
def run(run_command):
    return lambda *line: run_command(*line, checkpoint=None)


def test_the_report_is_json_on_stdout_and_files_in_out(run, tmp_path):
    result = run(*TINY, "--only", "vs_ar_s4", "--out", tmp_path, "--json")
    assert result.code == 0
    assert set(result.report["ratios"]) == {"vs_ar_s4", "loop_overhead"}
    assert json.loads((tmp_path / "decode.json").read_text()) == result.report
    assert Image.open(tmp_path / "decode.png").width > 500


def test_sizes_are_options(run):
    line = (*TINY, "--only", "vs_diffusion_gemma_b2", "--steps", 2, "--batch", 2, "--json")
    sizes = ("--new-tokens", 24, "--prompt-tokens", 5, "--block-length", 4, "--seed", 3)
    report = run(*line, *sizes, "--threads", 1, "--dtype", "bfloat16").report
    setup = report["setup"]
    assert (setup["new_tokens"], setup["prompt_tokens"], setup["block_length"]) == (24, 5, 4)
    assert (setup["steps"], setup["batches"], setup["seed"]) == ([2], [2], 3)
    assert report["contestants"]["unidiff_s2"]["num_forwards"] == 12
    assert report["rounds"][0]["diffusion_gemma_b2"]["num_tokens"] == 48


def test_the_table_shows_ratios_and_decoders(run):
    result = run(*TINY, "--only", "unidiff_s8")
    assert result.code == 0
    assert "tokens/s" in result.out
    assert "unidiff_s8" in result.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", "speed"), "unknown names ['speed']"),
        (("--rounds", 0), "rounds must be >= 1"),
        (("--steps", 9), "steps must be <= block_length=8"),
        (("--resume",), "--resume needs --out"),
    ],
)
def test_a_wrong_option_is_one_line(run, options, message):
    result = run("bench", "decode", "--tiny", *options)
    assert result.code == 2
    assert message in result.err


def test_ctrl_c_prints_the_finished_rounds(run, monkeypatch, tmp_path):
    timed = decode_benchmark._run_round

    def stop_in_the_second(contestants, number, *rest):
        if number == 1:
            raise KeyboardInterrupt
        return timed(contestants, number, *rest)

    monkeypatch.setattr(decode_benchmark, "_run_round", stop_in_the_second)
    line = ("bench", "decode", "--tiny", "--only", "vs_own_ar_s4", "--patience", 0, "--json")
    result = run(*line, "--out", tmp_path)
    assert result.code == 130
    assert json.loads(result.out)["num_rounds"] == 1
    assert (tmp_path / "decode.json").is_file()


def test_memory_is_reported_and_written(run, monkeypatch, tmp_path):
    measured = {"transient_bytes": 200_000_000, "num_forwards": 8}
    monkeypatch.setattr(memory_benchmark, "probe", lambda settings, options: dict(measured))
    result = run("bench", "memory", "--vocabulary", 1000, "--out", tmp_path, "--json")
    assert result.report["passes"]
    assert result.report["setup"]["vocab_size"] == 1000
    assert json.loads((tmp_path / "memory.json").read_text()) == result.report
    assert "aim met" in run("bench", "memory", "--only", "greedy").out
