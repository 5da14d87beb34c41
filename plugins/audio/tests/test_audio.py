"""The plugin keeps its contract; words and waveforms pass through prompts and canvases."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner
from unidiff_audio.speech import WORDS, load_corpus
from unidiff_audio.tasks import HearDigit, SayDigit, drawn

from unidiff.cli.app import app
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.plugins import PluginContract, answer_examples
from unidiff.tokens.processor import UniDiffProcessor


class TestAudio(PluginContract):
    plugin_name = "audio"


@pytest.fixture(scope="module")
def processor():
    return TestAudio().load_model()[1]


def test_an_utterance_is_heard_as_the_codes_of_its_waveform(processor):
    (example,) = HearDigit().dataset("test", 1)
    ids = HearDigit().build(processor, example)["input_ids"][0].numpy()
    own = processor.layout.range_of("audio")
    codes = processor.layout.decode("audio", ids[(ids >= own.start) & (ids < own.stop)])
    assert np.array_equal(codes, processor.modality("audio").encode(example["audio"]))


def test_what_is_spoken_is_a_waveform_of_the_codes_on_the_canvas(processor):
    (example,) = SayDigit().dataset("test", 1)
    inputs = SayDigit().build(processor, example)
    codes = processor.modality("audio").encode(example["audio"])
    wave = SayDigit().parse(processor, processor.layout.encode("audio", codes), inputs)
    assert np.array_equal(wave, processor.modality("audio").decode(codes))


def test_the_metrics_tell_right_from_wrong():
    spoken = load_corpus("test")
    examples = HearDigit().dataset("test", 20)
    assert HearDigit().metrics()["accuracy"]([e["word"] for e in examples], examples).all()
    assert not HearDigit().metrics()["accuracy"](["ten"] * 20, examples).any()
    others = [{"word": WORDS[(WORDS.index(e["word"]) + 1) % 10]} for e in examples]
    heard = SayDigit().metrics()["heard"]
    assert heard(list(spoken.waveforms[:20]), examples).mean() >= 0.95
    assert heard(list(spoken.waveforms[:20]), others).mean() <= 0.05


def test_silence_is_drawn_as_a_line_and_speech_is_not():
    silence, speech = drawn(np.zeros(4800)), drawn(load_corpus("test").waveforms[0])
    assert silence.shape == speech.shape == (64, 128, 3)
    assert (silence == 0).all(2).sum(0).max() <= 2 < (speech == 0).all(2).sum(0).max()


def test_training_utterances_are_varied_and_the_same_each_time():
    data, again = (HearDigit().dataset("train") for _ in range(2))
    assert len(data) == 6000
    first, later = data[7], data[607]
    assert first["word"] == later["word"]
    assert not np.array_equal(first["audio"], later["audio"])
    assert np.array_equal(later["audio"], again[607]["audio"])
    assert len(HearDigit().dataset("train", 3)) == len(data[:3]) == 3
    with pytest.raises(IndexError):
        data[6000]


@pytest.mark.parametrize("value", ["seven", {"a": 1}, object(), None])
def test_what_is_no_array_is_no_waveform(processor, value):
    with pytest.raises(TypeError, match="a waveform must be"):
        processor.modality("audio").encode(value)


def test_a_waveform_read_backwards_is_one(processor):
    wave = load_corpus("test").waveforms[0]
    codec = processor.modality("audio")
    assert np.array_equal(codec.encode(wave[::-1]), codec.encode(wave[::-1].copy()))


def test_finetuning_teaches_the_new_ids_and_the_adapter_is_a_checkpoint(tmp_path):
    out = tmp_path / "hear"
    line = ["finetune", "--task", "hear_digit", "--out", out, "--steps", 2, "--batch-size", 2]
    line += ["--limit", 4, "--held-out", 2, "--json"]
    result = CliRunner().invoke(app, [str(one) for one in line])
    assert result.exit_code == 0, (result.stderr, result.exception)
    report = json.loads(result.stdout)
    assert len(report["settings"]["lora"]["new_ids"]) == 242
    model = UniDiffForBlockDiffusion.from_pretrained(out).eval()
    processor = UniDiffProcessor.from_pretrained(out)
    task = HearDigit()
    (answer,) = answer_examples(task, model, processor, task.dataset("test", 1))
    assert isinstance(answer.value, str)
