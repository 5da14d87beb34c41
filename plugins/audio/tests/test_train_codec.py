"""Training of the speech tokenizer: learns, resumes exactly, refuses another run's state."""

import json

import numpy as np
import pytest
import torch
from unidiff_audio import train_codec as training
from unidiff_audio.codec import SpeechTokenizer, SpeechTokenizerConfig
from unidiff_audio.speech import load_corpus
from unidiff_audio.train_codec import TrainCodecOptions

SMALL = SpeechTokenizerConfig(levels=(4, 4), width=16, num_decoder_blocks=1, num_frame_blocks=1)


def options(**changes):
    return TrainCodecOptions(**({"steps": 6, "batch_size": 2, "show_progress": False} | changes))


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def waveforms():
    return load_corpus("train").waveforms[:40]


def test_training_lowers_the_loss(waveforms, tmp_path):
    chosen = options(steps=60, batch_size=8)
    losses = []
    run = training._TrainingRun(SMALL, chosen, tmp_path)
    for step in range(chosen.steps):
        losses.append(run.update(training._draw_batch(waveforms, chosen, step)))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_interrupted_run_continues_exactly(waveforms, tmp_path, monkeypatch):
    training.train_codec(waveforms, SMALL, options(), tmp_path / "whole")
    original = training._TrainingRun.update

    def interrupted(run, batch):
        if run.schedule.last_epoch == 5:
            raise KeyboardInterrupt
        return original(run, batch)

    chosen = options(save_every=3)
    with monkeypatch.context() as patch:
        patch.setattr(training._TrainingRun, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.train_codec(waveforms, SMALL, chosen, tmp_path / "parts")
    started = []
    draw = training._draw_batch

    def counted(waveforms, chosen, step):
        started.append(step)
        return draw(waveforms, chosen, step)

    monkeypatch.setattr(training, "_draw_batch", counted)
    training.train_codec(waveforms, SMALL, chosen, tmp_path / "parts")
    assert started == [3, 4, 5]
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == ["config.json", "model.safetensors"]


def test_state_of_another_run_is_refused(waveforms, tmp_path):
    run = training._TrainingRun(SMALL, options(), tmp_path)
    run.save(2)
    with pytest.raises(ValueError, match="belongs to another run"):
        training.train_codec(waveforms, SMALL, options(seed=1), tmp_path)


def test_seed_decides(waveforms, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(1)  # another random state, which must not matter
        state = torch.get_rng_state()
        training.train_codec(waveforms, SMALL, options(steps=2, seed=seed), tmp_path / name)
        assert torch.equal(torch.get_rng_state(), state)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    assert weights_of(tmp_path / "a") != weights_of(tmp_path / "c")


def test_batches_depend_on_seed_and_step(waveforms):
    batches = {
        (seed, step): training._draw_batch(waveforms, options(seed=seed), step)
        for seed in (0, 1)
        for step in (0, 1)
    }
    assert torch.equal(batches[0, 0], training._draw_batch(waveforms, options(), 0))
    for other in ((0, 1), (1, 0)):
        assert not torch.equal(batches[0, 0], batches[other])


def test_returned_tokenizer_is_the_saved_one(waveforms, tmp_path):
    trained = training.train_codec(waveforms, SMALL, options(steps=1), tmp_path)
    loaded = SpeechTokenizer.from_pretrained(tmp_path)
    assert not trained.training
    for key, weight in loaded.state_dict().items():
        assert torch.equal(weight, trained.state_dict()[key])


@pytest.mark.parametrize("name", ["steps", "batch_size", "lr", "save_every"])
def test_bad_options(name):
    with pytest.raises(ValueError, match=f"{name} must be > 0; got 0"):
        options(**{name: 0})


def test_command_reports_held_out_figures(waveforms, tmp_path, monkeypatch, capsys):
    spoken = load_corpus("test")
    monkeypatch.setattr(training, "utterances", lambda split, number, seed: spoken)
    monkeypatch.setattr(training, "SpeechTokenizerConfig", lambda: SMALL)
    training.main(["--out", str(tmp_path), "--steps", "1", "--seed", "0"])
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {
        "mel_distance",
        "code_use",
        "accuracy_on_originals",
        "accuracy_on_round_trips",
    }
    assert (tmp_path / "model.safetensors").is_file()
