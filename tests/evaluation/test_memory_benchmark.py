"""Peak memory of a decode: the arithmetic, a call of known size, and a run in its own process."""

import mmap
import subprocess

import numpy as np
import pytest
import torch

from unidiff.evaluation import memory_benchmark, memory_probe
from unidiff.evaluation.memory_benchmark import run_memory_benchmark
from unidiff.evaluation.memory_probe import cache_bytes, peak_during, resident_bytes, weight_bytes

MEASURED = {
    "transient_bytes": 300_000_000,
    "peak_bytes": 0,
    "resident_before_bytes": 0,
    "num_forwards": 8,
}


@pytest.fixture
def call_that_takes():
    """A call that takes so many bytes of new pages: a tensor may get pages held already."""

    def call_of(num_bytes):
        return lambda: np.frombuffer(mmap.mmap(-1, num_bytes), dtype=np.uint8).fill(1)

    return call_of


def test_the_peak_holds_what_a_call_gave_back(call_that_takes):
    call_that_takes(40_000_000)()
    before = resident_bytes()
    peak, _ = peak_during(call_that_takes(40_000_000))
    assert 38e6 < peak - before < 60e6


def test_samples_replace_a_mark_that_cannot_be_reset(monkeypatch, call_that_takes):
    num_bytes, before = 200_000_000, resident_bytes()
    monkeypatch.setattr(memory_probe, "_INTERVAL", 1e-4)
    peak = memory_probe._sampled_peak(call_that_takes(num_bytes))
    assert peak - before > 0.3 * num_bytes


def test_tied_weights_count_once():
    first, second = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    assert weight_bytes(torch.nn.Sequential(first, second)) == 64


def test_the_cache_holds_all_but_the_last_block():
    settings = {
        "prompt_tokens": 10,
        "new_tokens": 8,
        "block_length": 4,
        "dtype": "bfloat16",
        "batch": 3,
        "num_layers": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    assert cache_bytes(settings) == 3 * 14 * 2 * 2 * 16 * 2


def test_a_report_compares_with_the_goal_in_megabytes(monkeypatch):
    monkeypatch.setattr(memory_benchmark, "probe", lambda settings, options: dict(MEASURED))
    report = run_memory_benchmark(batch=2, seed=5)
    assert report["modes"]["greedy"]["transient_megabytes"] == 300.0
    assert not report["passes"]
    assert report["setup"]["batch"] == 2
    assert report["setup"]["vocab_size"] == 131_072
    assert report["modes"]["sampled"]["options"]["top_p"] == 0.9
    monkeypatch.setitem(MEASURED, "transient_bytes", 256_000_000)
    assert run_memory_benchmark(only=["greedy"])["passes"]


def test_unknown_modes_and_settings_are_errors():
    with pytest.raises(ValueError, match=r"unknown modes \['beam'\]"):
        run_memory_benchmark(only=["beam"])
    with pytest.raises(ValueError, match="settings must be among"):
        run_memory_benchmark(width=3)


def test_a_failed_process_is_an_error_that_says_why(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback:\nKeyError: 'threads'\n")
    monkeypatch.setattr(memory_benchmark.subprocess, "run", lambda *line, **how: failed)
    with pytest.raises(ValueError, match="code 1: KeyError: 'threads'"):
        memory_benchmark.probe({}, {})


def test_a_tiny_decode_is_measured_in_its_own_process():
    report = run_memory_benchmark("tiny", only=["sampled"])
    found = report["modes"]["sampled"]
    assert (found["num_tokens"], found["num_forwards"]) == (32, 4)
    assert found["weight_bytes"] > 2048 * 32 * 4
    assert 0 <= found["transient_megabytes"] < 100
