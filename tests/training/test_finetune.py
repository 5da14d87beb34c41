"""Fine-tuning: the base stays, a stopped run goes on, the retain term holds, folders load."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from unidiff.bundled import bundled_checkpoint
from unidiff.data.stream import MixtureStream, Weighted
from unidiff.model.adapters import WEIGHTS_FILE
from unidiff.model.growth import grow_vocabulary
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import IdRange
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.training.adapter_folder import record_of, save_adapter
from unidiff.training.finetune import FinetuneOptions, TaskSource, finetune
from unidiff.training.lora import LoRAOptions, add_lora
from unidiff.training.retain import RetainTerm, adapters_off

LORA = LoRAOptions(r=2, target_modules=("q_proj", "down_proj"))
SMALL = FinetuneOptions(steps=4, batch_size=4, micro_batch=2, save_steps=2, lora=LORA)


@pytest.fixture
def source(tiny):
    return tiny.Sentences()


def adapter_weights(model):
    return {n: w.detach().clone() for n, w in model.named_parameters() if w.requires_grad}


def trained(tiny, source, folder, options=SMALL, **kwargs):
    torch.manual_seed(3)
    model = add_lora(tiny.tiny_model(), options.lora)
    return finetune(model, source, folder, options, **kwargs)


def base_weights(model):
    return {n: w for n, w in model.state_dict().items() if "lora_" not in n}


def test_the_base_does_not_change_and_the_adapter_does(tiny, source, tmp_path):
    fresh = tiny.tiny_model().state_dict()
    model = trained(tiny, source, tmp_path / "run")
    own = {name.replace(".base_layer", ""): w for name, w in base_weights(model).items()}
    assert own.keys() == fresh.keys()
    assert all(torch.equal(own[name], fresh[name]) for name in fresh)
    assert any(w.abs().max() > 0 for n, w in adapter_weights(model).items() if "lora_B" in n)


def test_adapter_off_gives_the_logits_of_the_base_bit_for_bit(tiny, source, tmp_path):
    ids = torch.tensor([[5, 6, 7, 8]])
    before = tiny.tiny_model().eval()(ids).logits
    model = trained(tiny, source, tmp_path / "run")
    on = model(ids).logits
    with adapters_off(model):
        assert torch.equal(model(ids).logits, before)
    assert torch.equal(model(ids).logits, on)
    assert not torch.equal(on, before)


@pytest.mark.parametrize("new_ids", [(), (7, 9)])
def test_a_stopped_run_goes_on_to_the_same_weights(tiny, source, tmp_path, monkeypatch, new_ids):
    options = replace(SMALL, lora=replace(LORA, new_ids=new_ids))
    whole = adapter_weights(trained(tiny, source, tmp_path / "whole", options))
    assert any("trainable_tokens" in name for name in whole) == bool(new_ids)
    monkeypatch.setattr(
        "unidiff.training.finetune.AdapterTrainer.training_step",
        _interrupted_after("unidiff.training.finetune", 6),
    )
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, source, tmp_path / "cut", options)
    monkeypatch.undo()
    assert (tmp_path / "cut" / "checkpoint-2").is_dir()
    again = adapter_weights(trained(tiny, source, tmp_path / "cut", options))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def _interrupted_after(module, calls):
    """A training step that is interrupted when it was called so often."""
    from unidiff.training.finetune import AdapterTrainer

    step, count = AdapterTrainer.training_step, SimpleNamespace(n=0)

    def interrupted(self, *args, **kwargs):
        count.n += 1
        if count.n > calls:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    return interrupted


def test_a_folder_of_other_settings_is_refused(tiny, source, tmp_path):
    trained(tiny, source, tmp_path)
    other = FinetuneOptions(steps=4, batch_size=4, micro_batch=2, save_steps=2, seed=1, lora=LORA)
    with pytest.raises(ValueError, match=r"other settings \(seed\)"):
        trained(tiny, source, tmp_path, other)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"batch_size": 6, "micro_batch": 4}, "micro_batch must divide"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        FinetuneOptions(**fields)


@pytest.fixture
def retain(tiny):
    stream = MixtureStream([Weighted(tiny.Sentences(), 1)], 64, 9)
    return RetainTerm(stream, weight=1.0, batch_size=4)


def moved(model, distance=0.5):
    """The model with its adapter pushed away from nothing."""
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=distance)
    return model


def test_the_retain_term_is_zero_at_the_base_and_grows_with_the_distance(tiny, retain):
    model = add_lora(tiny.tiny_model(), LORA).eval()
    assert float(retain(model, model, 0).detach()) == pytest.approx(0.0, abs=1e-7)
    assert float(retain(moved(model), model, 0).detach()) > 1e-3


def test_the_retain_term_trains_the_adapter_alone_and_leaves_it_active(tiny, retain):
    model = moved(add_lora(tiny.tiny_model(), LORA))
    retain(model, model, 0).backward()
    with_gradient = {n for n, w in model.named_parameters() if w.grad is not None}
    assert with_gradient
    assert all("lora_" in name for name in with_gradient)
    assert model.active_adapters() == ["default"]
    assert all(w.requires_grad == ("lora_" in n) for n, w in model.named_parameters())


def test_low_noise_counts_what_is_masked_whole_for_nothing(tiny, retain):
    model = moved(add_lora(tiny.tiny_model(), LORA)).eval()
    low = RetainTerm(retain.stream, batch_size=4, weighting="low_noise")
    assert 0 < float(low(model, model, 0).detach()) < float(retain(model, model, 0).detach())


def test_retaining_keeps_the_adapted_model_nearer_to_the_base(tiny, source, tmp_path):
    options = FinetuneOptions(steps=30, batch_size=8, micro_batch=8, learning_rate=2e-2, lora=LORA)
    other = _Other(tiny)
    stream = MixtureStream([Weighted(other, 1)], 240, 9)
    measure = RetainTerm(stream, batch_size=16)
    free = trained(tiny, source, tmp_path / "free", options)
    held = trained(
        tiny, source, tmp_path / "held", options, retain=RetainTerm(stream, 20.0, batch_size=8)
    )
    far, near = (float(measure(m, m, 0).detach()) for m in (free, held))
    assert near < 0.5 * far


class _Other:
    """Sentences with other words behind other prompts."""

    name = "other"

    def __init__(self, tiny):
        self.tiny = tiny

    def __len__(self):
        return 16

    def row(self, index, rng):
        row = self.tiny.Sentences().row((index + 5) % 16, rng)
        row.input_ids[1] = 4 + (index + 9) % 20
        return row


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weight": -1.0}, "weight >= 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"weighting": "x"}, "one of"),
    ],
)
def test_a_retain_term_checks_its_numbers(retain, fields, words):
    with pytest.raises(ValueError, match=words):
        RetainTerm(retain.stream, **fields)


@pytest.fixture(scope="module")
def bundled():
    folder = bundled_checkpoint()
    torch.manual_seed(0)
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    return model, UniDiffProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def adapter(bundled, tmp_path_factory):
    """Folder of an adapter on the bundled checkpoint, its logits and the base's."""
    model, processor = bundled
    folder = tmp_path_factory.mktemp("adapters") / "one"
    ids = processor.for_completion("def read(")["input_ids"]
    base = model(ids).logits
    record = record_of(model, "some_task")
    torch.manual_seed(1)
    moved(add_lora(model, LoRAOptions(r=2, target_modules=("q_proj",))), 0.05)
    save_adapter(model, folder, processor, record, decoding={"max_new_tokens": 7})
    return SimpleNamespace(folder=folder, ids=ids, base=base, logits=model(ids).logits)


def test_an_adapter_folder_loads_as_a_model_with_its_decoding_options(adapter):
    from transformers import AutoModelForCausalLM, AutoProcessor

    for loader in (UniDiffForBlockDiffusion, AutoModelForCausalLM):
        model = loader.from_pretrained(adapter.folder, dtype=torch.float32).eval()
        torch.testing.assert_close(model(adapter.ids).logits, adapter.logits, rtol=0, atol=1e-6)
        assert model.generation_config.max_new_tokens == 7
    processor = AutoProcessor.from_pretrained(adapter.folder)
    assert processor.for_completion("def read(")["input_ids"].equal(adapter.ids)


def test_pefts_own_loader_takes_the_folder(adapter):
    base = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter.folder).eval()
    torch.testing.assert_close(model(adapter.ids).logits, adapter.logits, rtol=0, atol=1e-6)


def test_an_adapter_without_a_processor_says_how_to_use_it(adapter, tmp_path):
    shutil.copytree(adapter.folder, tmp_path / "bare")
    (tmp_path / "bare" / "processor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="load_adapter"):
        UniDiffProcessor.from_pretrained(tmp_path / "bare")


def test_merged_weights_give_the_adapters_logits(adapter):
    model = UniDiffForBlockDiffusion.from_pretrained(adapter.folder, dtype=torch.float32).eval()
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(adapter.ids).logits, adapter.logits, rtol=1e-5, atol=1e-5)
    assert not any("lora_" in name for name in merged.state_dict())


def test_merging_in_place_is_undone_up_to_rounding(adapter):
    model = UniDiffForBlockDiffusion.from_pretrained(adapter.folder, dtype=torch.float32).eval()
    model.merge_adapter()
    torch.testing.assert_close(model(adapter.ids).logits, adapter.logits, rtol=1e-5, atol=1e-5)
    model.unmerge_adapter()
    with adapters_off(model):
        torch.testing.assert_close(model(adapter.ids).logits, adapter.base, rtol=1e-5, atol=1e-5)


def test_an_adapter_for_another_base_is_refused_by_its_fingerprint(adapter, tiny):
    record = json.loads((adapter.folder / "unidiff_adapter.json").read_text())
    assert record["base"] == "unidiff:bundled"
    assert record["task"] == "some_task"
    model = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[3].mlp.up_proj.weight[0, 0] += 0.5
    with pytest.raises(ValueError, match=r"is an adapter for unidiff:bundled.*have changed since"):
        model.load_adapter(adapter.folder)


def test_an_adapter_that_was_in_the_folder_is_replaced_whole(bundled, adapter, tmp_path):
    shutil.copytree(adapter.folder, tmp_path / "two")
    (tmp_path / "two" / "old.txt").write_text("old")
    model, processor = bundled
    save_adapter(model, tmp_path / "two", processor, record_of(model, "t"))
    assert not (tmp_path / "two" / "old.txt").exists()
    assert load_file(tmp_path / "two" / WEIGHTS_FILE).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_a_folder_of_something_else_is_left_alone(bundled, adapter, tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    model, processor = bundled
    with pytest.raises(FileExistsError, match="is no adapter folder"):
        save_adapter(model, tmp_path, processor, record_of(model, "t"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_with_new_ids_brings_their_rows_along(tied, tiny, bundled, tmp_path):
    """The base is grown on loading, and the trained rows are the saved ones."""
    torch.manual_seed(2)
    base = tiny.tiny_model(tie_word_embeddings=tied)
    base.save_pretrained(tmp_path / "base")
    model = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "base")
    record = record_of(model, "t")
    ranges = {**model.config.layout.ranges, "action": IdRange(32, 6)}
    layout = replace(model.config.layout, ranges=ranges, action_grid=(3, 2))
    new_ids = grow_vocabulary(model, layout)
    assert (new_ids, model.config.vocab_size) == (range(32, 38), 38)
    options = LoRAOptions(r=2, target_modules=("q_proj",), new_ids=tuple(new_ids))
    moved(add_lora(model, options))
    for name, weight in model.named_parameters():
        if "trainable_tokens_delta" in name:
            torch.nn.init.normal_(weight)
    ids = torch.tensor([[5, 33, 37, 8]])
    expected = model.eval()(ids).logits
    save_adapter(model, tmp_path / "adapter", bundled[1], record)
    saved = load_file(tmp_path / "adapter" / WEIGHTS_FILE)
    assert max(weight.shape[0] for weight in saved.values()) < 38  # no embedding of the base
    again = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "adapter").eval()
    torch.testing.assert_close(again(ids).logits, expected, rtol=0, atol=1e-6)
    assert again.config.layout.range_of("action").start == 32
    merged = again.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_saving_without_an_adapter_is_an_error(tiny, bundled, tmp_path):
    model = tiny.tiny_model()
    with pytest.raises(ValueError, match="no adapter 'default'"):
        save_adapter(model, tmp_path / "x", bundled[1], record_of(model, "t"))


def test_a_task_is_a_source_of_rows():
    task = SimpleNamespace(name="t", training_row=lambda processor, example, rng: (example, rng))
    source = TaskSource(task, None, ["a", "b"])
    assert (source.name, len(source), source.row(1, None)) == ("t", 2, ("b", None))
