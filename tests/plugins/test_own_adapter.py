"""An adapter that comes with a task: on while the task is asked, and gone without a trace."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from unidiff.bundled import bundled_checkpoint
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.plugins import ChatTask
from unidiff.plugins.own_adapter import own_adapter, reads_own_adapter
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.training.adapter_folder import record_of, save_adapter


class Shouting(ChatTask):
    """A task that brings an adapter."""

    name, summary = "shouting", "Louder."
    is_in_base = False


@pytest.fixture
def model():
    return UniDiffForBlockDiffusion.from_pretrained(
        bundled_checkpoint(), dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapters of the bundled checkpoint that change what it says."""
    folders = []
    processor = UniDiffProcessor.from_pretrained(bundled_checkpoint())
    for seed in range(2):
        model = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
        record = record_of(model, "shouting")
        model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "o_proj"]))
        torch.manual_seed(seed)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        folder = tmp_path_factory.mktemp("adapters") / f"adapter{seed}"
        folders.append(save_adapter(model, folder, processor, record))
    return folders


def task_with(adapter: Path | None, name: str = "shouting") -> Shouting:
    task = Shouting()
    task.adapter, task.name = adapter, name
    return task


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 13)[None]).logits


def test_it_is_on_inside_and_gone_behind(model, adapters):
    before = logits(model)
    for _ in range(2):  # loaded the first time, found the second
        with own_adapter(task_with(adapters[0]), model) as is_read:
            assert is_read
            inside = logits(model)
        assert not torch.equal(inside, before)
        assert torch.equal(logits(model), before)
    assert list(model.peft_config) == ["own_shouting"]


def test_each_task_reads_its_own(model, adapters):
    alone = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
    alone.load_adapter(adapters[1])
    with own_adapter(task_with(adapters[0]), model):
        first = logits(model)
    with own_adapter(task_with(adapters[1], "whispering"), model):
        second = logits(model)
    with own_adapter(task_with(adapters[0]), model):
        assert torch.equal(logits(model), first)
    assert not torch.equal(first, second)
    assert torch.equal(second, logits(alone.eval()))


def test_one_inside_another_leaves_the_outer_one_on(model, adapters):
    before = logits(model)
    with own_adapter(task_with(adapters[0]), model):
        outer = logits(model)
        for task in (task_with(adapters[1], "whispering"), task_with(adapters[0])):
            with own_adapter(task, model):
                pass
            assert torch.equal(logits(model), outer)
    assert torch.equal(logits(model), before)


def test_an_adapter_that_is_loaded_afterwards_reads(model, adapters, caplog):
    """As `unidiff eval tasks --adapter` does; and nobody calls the first one's weights missing."""
    alone = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
    alone.load_adapter(adapters[1])
    with own_adapter(task_with(adapters[0]), model):
        pass
    model.load_adapter(adapters[1], adapter_name="mine")
    assert torch.equal(logits(model), logits(alone.eval()))
    assert "MISSING" not in caplog.text


def test_it_is_gone_after_an_error(model, adapters):
    before = logits(model)
    with pytest.raises(RuntimeError), own_adapter(task_with(adapters[0]), model):
        raise RuntimeError
    assert torch.equal(logits(model), before)


def test_the_users_own_choice_of_weights_is_kept(model, adapters, tmp_path):
    task = task_with(adapters[0])
    assert reads_own_adapter(task, model)
    model.save_pretrained(tmp_path)
    elsewhere = UniDiffForBlockDiffusion.from_pretrained(tmp_path)
    assert not reads_own_adapter(task, elsewhere)
    model.load_adapter(adapters[1])
    loaded = logits(model)
    with own_adapter(task, model) as is_read:
        assert not is_read
        assert torch.equal(logits(model), loaded)
    assert torch.equal(logits(model), loaded)


def test_a_task_without_one_reads_none(model):
    with own_adapter(task_with(None), model) as is_read:
        assert not is_read
    assert not hasattr(model, "peft_config")
