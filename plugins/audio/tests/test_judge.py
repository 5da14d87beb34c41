"""The judge: accurate on voices it never heard, strict about its input, trainable."""

import numpy as np
import pytest
import torch
from unidiff_audio import judge
from unidiff_audio.speech import Utterances, load_corpus


def test_judge_knows_held_out_voices():
    spoken = load_corpus("test")
    heard = judge.recognise(spoken.waveforms)
    assert heard.dtype == np.int64
    assert np.mean(heard == spoken.digits) >= 0.97
    assert judge.accuracy(spoken.waveforms, spoken.digits) == np.mean(heard == spoken.digits)


def test_judge_ignores_loudness():
    waveforms = load_corpus("test").waveforms[:50]
    same = judge.recognise(waveforms) == judge.recognise(waveforms * 0.5)
    assert same.mean() >= 0.96


def test_judge_weights_are_small():
    assert judge.WEIGHTS_FILE.stat().st_size < 300_000


@pytest.mark.parametrize("shape", [(4800,), (2, 4799), (2, 1, 4800)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"waveforms must have shape \(N, 4800\)"):
        judge.recognise(np.zeros(shape, np.float32))


def test_not_finite():
    with pytest.raises(ValueError, match="finite"):
        judge.recognise(np.full((1, 4800), np.nan, np.float32))


def test_digits_of_another_length():
    with pytest.raises(ValueError, match=r"2 waveforms but digits of shape \(3,\)"):
        judge.accuracy(np.zeros((2, 4800), np.float32), np.zeros(3, np.int64))


def test_training_learns_and_is_deterministic():
    corpus = load_corpus("train")
    kept = np.flatnonzero(corpus.digits < 2)
    spoken = Utterances(corpus.waveforms[kept], corpus.digits[kept], ())
    first = judge.train_judge(spoken, 25, seed=0, show_progress=False)
    torch.rand(1)  # another random state, which must not matter
    state = torch.get_rng_state()
    second = judge.train_judge(spoken, 25, seed=0, show_progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        logits = first(torch.from_numpy(spoken.waveforms))
        assert torch.equal(logits, second(torch.from_numpy(spoken.waveforms)))
    assert (logits.argmax(1).numpy() == spoken.digits).mean() > 0.85


def test_recognising_leaves_the_random_state():
    judge._judge.cache_clear()
    state = torch.get_rng_state()
    judge.recognise(np.zeros((1, 4800), np.float32))
    assert torch.equal(torch.get_rng_state(), state)
