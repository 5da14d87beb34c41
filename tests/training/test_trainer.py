"""The trainer: it learns, resumes step for step, and gives the same losses on any topology."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unidiff.data.collator import BlockCollator
from unidiff.training.trainer import (
    AVERAGE_FILE,
    BlockTrainingArguments,
    WeightAverage,
    newest_checkpoint,
)

STEPS = 5
SCRIPT = Path(__file__).with_name("tiny_run.py")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], rtol=0, atol=0)


def run_script(
    options: dict[str, Any], result: Path, launcher: Sequence[str] = ()
) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher, str(SCRIPT), json.dumps(options), str(result)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def uninterrupted(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of `STEPS` steps."""
    trainer = tiny.tiny_trainer(tmp_path_factory.mktemp("whole"), STEPS)
    trainer.train()
    return trainer


def test_the_run_is_reproducible_and_logs_each_modality(
    uninterrupted: Any, tiny: ModuleType, tmp_path: Path
) -> None:
    again = tiny.tiny_trainer(tmp_path, STEPS)
    again.train()
    assert tiny.losses_of(again) == tiny.losses_of(uninterrupted)
    assert len(tiny.losses_of(again)) == STEPS
    for line in again.state.log_history[:STEPS]:
        assert {"text_nats", "image_nats", "ar_nats"} <= line.keys()
        assert "action_nats" not in line


def test_accumulation_and_batch_size_do_not_change_the_losses(
    uninterrupted: Any, tiny: ModuleType, tmp_path: Path
) -> None:
    for batch_size, accumulation in ((8, 1), (2, 4)):
        trainer = tiny.tiny_trainer(
            tmp_path / str(batch_size), 3, batch_size, accumulation, save_steps=100
        )
        trainer.train()
        expected = tiny.losses_of(uninterrupted)[:3]
        assert tiny.losses_of(trainer) == pytest.approx(expected, rel=1e-5)


def test_logged_loss_is_nats_per_response_token(tiny: ModuleType, tmp_path: Path) -> None:
    trainer = tiny.tiny_trainer(tmp_path, 1)
    stream = trainer.train_dataset
    batch = BlockCollator()([stream[item] for item in range(8)])
    expected = float(trainer.objective(tiny.tiny_model(), batch, trainer.model.config)[0].detach())
    trainer.train()
    assert tiny.losses_of(trainer) == pytest.approx([expected], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["own", "moved"])
def test_a_killed_run_resumes_step_for_step(
    folder: str, uninterrupted: Any, tiny: ModuleType, tmp_path: Path
) -> None:
    options = {"output_dir": str(tmp_path / "run"), "steps": STEPS, "kill_at": 3}
    killed = run_script(options, tmp_path / "never.json")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    newest = newest_checkpoint(tmp_path / "run", needs_average=True)
    assert newest is not None
    assert newest.name == "checkpoint-2"
    if folder == "own":
        resumed = tiny.tiny_trainer(tmp_path / "run", STEPS)
        resumed.train(resume_from_checkpoint=True)
    else:  # the checkpoint of another folder brings its average along
        resumed = tiny.tiny_trainer(tmp_path / "elsewhere", STEPS)
        resumed.train(resume_from_checkpoint=newest)
    assert tiny.losses_of(resumed) == tiny.losses_of(uninterrupted)
    assert_same(weights_of(resumed.model), weights_of(uninterrupted.model))
    assert_same(resumed.average.weights, uninterrupted.average.weights)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(
    uninterrupted: Any, tiny: ModuleType, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # `--cpu` starts several processes through MPI only; `--multi_gpu` means torch.distributed,
    # which the trainer runs on the CPU with `use_cpu`.
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--num_cpu_threads_per_process", "1", "--main_process_port", str(port)]
    options = {
        "output_dir": str(tmp_path / "run"),
        "steps": 3,
        "batch_size": 2,
        "accumulation": 2,
    }
    done = run_script(options, tmp_path / "result.json", launcher)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["world"] == 2
    assert result["losses"] == pytest.approx(tiny.losses_of(uninterrupted)[:3], rel=1e-5)
    assert result["text_nats"] == pytest.approx(tiny.text_nats_of(uninterrupted)[:3], rel=1e-5)
    # The optimisers are blind to a factor on the gradient: its norm shows one.
    assert result["norms"] == pytest.approx(tiny.norms_of(uninterrupted)[:3], rel=1e-4)


@pytest.mark.slow
def test_sixteen_sentences_and_pictures_are_learned(tiny: ModuleType, tmp_path: Path) -> None:
    trainer = tiny.tiny_trainer(
        tmp_path,
        150,
        batch_size=16,
        accumulation=1,
        items_per_step=16,
        save_strategy="no",
        logging_steps=30,
        learning_rate=3e-2,
        lr_scheduler_type="linear",
    )
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert lines[0]["text_nats"] > 1.5
    assert lines[-1]["text_nats"] < 0.2
    assert lines[-1]["ar_nats"] < 0.1
    assert lines[-1]["image_nats"] < 0.7 * lines[0]["image_nats"]
    batch = BlockCollator()([trainer.train_dataset[item] for item in range(0, 64, 4)])
    model = trainer.model.eval()
    bounds = []
    for _ in range(2):  # the last weights, then their average
        bound = model.nll(batch, num_samples=8)
        bounds.append(float(bound.nats_B.sum() / bound.num_tokens_B.sum()))
        trainer.average.copy_to(model)
    assert max(bounds) < 0.2


def test_bfloat16_training_starts_close_to_float32(
    uninterrupted: Any, tiny: ModuleType, tmp_path: Path
) -> None:
    trainer = tiny.tiny_trainer(tmp_path, 3, bf16=True, save_steps=100)
    trainer.train()
    assert tiny.losses_of(trainer) == pytest.approx(tiny.losses_of(uninterrupted)[:3], rel=0.02)
    assert next(trainer.model.parameters()).dtype == torch.float32


def test_evaluation_does_not_enter_the_training_log(tiny: ModuleType, tmp_path: Path) -> None:
    trainer = tiny.tiny_trainer(tmp_path, 1, save_steps=100)
    trainer.eval_dataset = trainer.train_dataset
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 0
    trainer.train()
    fresh = tiny.tiny_trainer(tmp_path, 1, save_steps=100)
    fresh.train()
    for name in ("loss", "text_nats", "image_nats"):
        logged = [line[name] for line in trainer.state.log_history if name in line]
        assert logged == [fresh.state.log_history[0][name]]


def test_average_follows_the_weights_with_a_ramp() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, decay=0.5)
    state: Any = type("State", (), {"global_step": 0})()
    control: Any = None
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0], 1):
        model.weight.data.fill_(value)
        state.global_step = step
        average.on_step_end(None, state, control, model=model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(average.weights["weight"]) == pytest.approx(expected)
    average.copy_to(model)
    assert model.weight.item() == pytest.approx(expected)


def test_average_holds_what_is_trained_alone() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[0].requires_grad_(False)
    average = WeightAverage(model, decay=0.5)
    assert set(average.weights) == {"1.weight", "1.bias"}
    frozen = model[0].weight.clone()
    model[1].weight.data.fill_(7.0)
    average.copy_to(model)
    assert model[1].weight.item() != 7.0
    assert torch.equal(model[0].weight, frozen)


def test_average_is_saved_in_the_checkpoint(uninterrupted: Any) -> None:
    folder = newest_checkpoint(uninterrupted.args.output_dir, needs_average=True)
    assert folder is not None
    saved = load_file(folder / AVERAGE_FILE)
    assert folder.name == f"checkpoint-{STEPS}"  # the trainer saves the last step too
    assert_same(saved, uninterrupted.average.weights)
    different = weights_of(uninterrupted.model)
    assert any(not torch.equal(saved[name], different[name]) for name in saved)
    assert not list(folder.glob("*.partial"))


def test_a_checkpoint_without_its_average_is_not_resumed_silently(
    tiny: ModuleType, tmp_path: Path
) -> None:
    tiny.tiny_trainer(tmp_path, 4).train()
    (tmp_path / "checkpoint-4" / AVERAGE_FILE).unlink()  # killed while saving
    assert newest_checkpoint(tmp_path, needs_average=True) == tmp_path / "checkpoint-2"
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    with pytest.raises(FileNotFoundError, match=r"has no average\.safetensors"):
        tiny.tiny_trainer(tmp_path, 6).train(resume_from_checkpoint=tmp_path / "checkpoint-4")
    without = tiny.tiny_trainer(tmp_path, 6, average_decay=0.0)
    without.train(resume_from_checkpoint=tmp_path / "checkpoint-4")
    assert without.state.global_step == 6


def test_half_written_checkpoints_are_passed_over(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for step, files in ((9, ["trainer_state.json"]), (10, ["model.safetensors"])):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in files:
            (folder / name).write_text("{}")
    (tmp_path / "checkpoint-old").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert newest_checkpoint(tmp_path, needs_average=True) is None


def test_resuming_from_nothing_is_an_error(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no complete checkpoint"):
        tiny.tiny_trainer(tmp_path, 2).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"average_decay": 1.0}, "average_decay must lie in"),
        ({"average_decay": -0.1}, "average_decay must lie in"),
        ({"remove_unused_columns": True}, "leave False"),
    ],
)
def test_arguments_that_break_the_run_are_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        BlockTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **fields)
