"""The report on reuse: known answers, a judge that counts only responses, a run on tiny weights."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unidiff.bundled import bundled_checkpoint
from unidiff.evaluation.reuse import agreement, distinct_pairs, reuse_report
from unidiff.evaluation.reuse_bench import ReuseBenchmark, run_reuse_benchmark
from unidiff.evaluation.reuse_plot import draw_reuse
from unidiff.evaluation.reuse_text import autoregressive_judge
from unidiff.generation.options import APPROXIMATE_CACHE_REUSES
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion

OPTIONS = {"max_new_tokens": 12, "block_length": 4, "eos_token_id": -1, "seed": 1}


def tiny(**fields: int) -> UniDiffForBlockDiffusion:
    torch.manual_seed(3)
    config = UniDiffConfig(
        vocab_size=48, hidden_size=32, intermediate_size=48, head_dim=16, initializer_range=0.25
    )
    config.attention_pattern = "full"
    for name, value in fields.items():
        setattr(config, name, value)
    return UniDiffForBlockDiffusion(config).double().eval()


def test_agreement_counts_places_rows_and_the_first_difference() -> None:
    exact = [torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([[1, 1, 1, 1]])]
    found = [torch.tensor([[1, 2, 3, 4], [5, 0, 7, 0]]), torch.tensor([[0, 1, 1, 1]])]
    assert agreement(found, exact) == {
        "equal_tokens": pytest.approx(9 / 12),
        "identical_rows": pytest.approx(1 / 3),
        "first_difference": 1.0,
    }
    with pytest.raises(ValueError, match="eos_token_id=-1"):
        agreement(found[:1], exact)


def test_distinct_pairs_of_a_row_that_repeats_itself() -> None:
    assert distinct_pairs([torch.tensor([[1, 1, 1, 1, 1]])]) == pytest.approx(1 / 4)
    assert distinct_pairs([torch.tensor([[1, 2, 3, 4, 5]])]) == 1.0


def test_every_kind_is_compared_with_none_on_the_same_seeds() -> None:
    prompts = [torch.tensor([[2, 5, 6]]), torch.tensor([[2, 7, 8]])]

    def judge(prompt: Tensor, response: Tensor) -> Tensor:
        assert prompt.shape == (1, 3)
        return torch.full((len(response),), 6.0)

    report = reuse_report(tiny(), prompts, OPTIONS, judge=judge)
    assert list(report) == ["none", *APPROXIMATE_CACHE_REUSES]
    none = report["none"]
    assert none["agreement"]["identical_rows"] == 1.0
    assert none["speed_over_none"] == {"median_of_pairs": 1.0, "of_shortest": 1.0}
    assert none["judge_nats_per_token"] == pytest.approx(0.5)
    assert "reuse" not in none
    for kind in APPROXIMATE_CACHE_REUSES:
        assert len(report[kind]["seconds"]["wall"]) == 2
        assert report[kind]["num_forwards"] == none["num_forwards"] == [12, 12]
        assert len(report[kind]["reuse"]["refresh_rate_per_layer"]) == 2
        assert report[kind]["reuse"]["share_computed"] < 1.0


def test_a_kind_that_refreshes_everything_agrees_wholly() -> None:
    kinds = {"exactly": {"cache_reuse": "elastic", "reuse_gamma": 1.5}}
    report = reuse_report(tiny(), [torch.tensor([[2, 5, 6]])], OPTIONS, kinds)
    assert report["exactly"]["agreement"]["equal_tokens"] == 1.0
    assert report["exactly"]["reuse"]["share_computed"] == 1.0
    assert "judge_nats_per_token" not in report["exactly"]


def test_without_prompts_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        reuse_report(tiny(), [], OPTIONS)


def test_the_judge_counts_the_response_alone_and_reads_what_is_before_it() -> None:
    model = tiny(attention_pattern="causal_context", max_position_embeddings=512)
    judge = autoregressive_judge(model, first_id=2)
    ids = torch.randint(4, 48, (1, 9), generator=torch.Generator().manual_seed(0))
    logits = model(torch.cat([torch.tensor([[2]]), ids], 1)).logits.double()
    allowed_V = model.config.layout.allowed_ids("text", model.config.vocab_size)
    logits = logits.masked_fill(~allowed_V, -torch.inf)
    wanted = logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, :, None])[5:].sum()
    torch.testing.assert_close(judge(ids[:, :5], ids[:, 5:])[0], -wanted, rtol=1e-5, atol=1e-5)
    long = torch.randint(4, 48, (2, 300), generator=torch.Generator().manual_seed(1))
    other = long.clone()
    other[:, 0] = 9  # farther away than a window reaches
    first, second = judge(long[:, :30], long[:, 30:]), judge(other[:, :30], other[:, 30:])
    assert bool((first > 0).all())
    assert not torch.equal(first, second)  # the response's first tokens still see it
    torch.testing.assert_close(
        judge(long[:, :200], long[:, 200:]), judge(other[:, :200], other[:, 200:])
    )


def test_the_benchmark_records_what_repeats_it(tmp_path: Path) -> None:
    config = UniDiffConfig.from_pretrained(bundled_checkpoint())
    config.attention_pattern, config.num_hidden_layers = "full", 2
    torch.manual_seed(0)
    UniDiffForBlockDiffusion(config).save_pretrained(tmp_path)
    settings = ReuseBenchmark(rounds=1, prompt_length=8, new_tokens=8, block_length=4, steps=2)
    report = run_reuse_benchmark(tmp_path, settings, ["dual", "elastic"])
    assert report["settings"]["seed"] == 0
    assert report["decoding"]["max_denoising_steps"] == 2
    assert report["kinds"]["elastic"]["options"]["reuse_gamma"] == 0.9
    assert report["real_text_judge_nats_per_token"] > 0
    assert list(report["kinds"]) == ["none", "dual", "elastic"]
    json.dumps(report)
    draw_reuse(report, tmp_path / "reuse.png")
    assert (tmp_path / "reuse.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="kinds must be of"):
        run_reuse_benchmark(tmp_path, settings, ["exact"])
    with pytest.raises(ValueError, match="--recipe full"):
        run_reuse_benchmark(bundled_checkpoint(), settings)
    with pytest.raises(ValueError, match="dtype must be one of"):
        ReuseBenchmark(dtype="int8")
