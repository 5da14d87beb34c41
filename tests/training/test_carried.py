"""A carried run goes on with the same weights at the same place in the data."""

import json

import pytest
import torch

from unidiff.data.stream import MixtureStream, Weighted
from unidiff.model import UniDiffConfig, UniDiffForBlockDiffusion
from unidiff.training.carried import (
    CarriedRun,
    carry,
    load_carried_weights,
    note_start,
    read_carried,
    start_of,
)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(1)
    folder = tmp_path / "checkpoint-7"
    UniDiffForBlockDiffusion(UniDiffConfig()).save_pretrained(folder)
    state = {"global_step": 7, "log_history": [{"step": 5, "loss": 2.0}]}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def test_a_carried_run_is_read_back_with_its_steps_and_whole_log(checkpoint, tmp_path):
    note_start(CarriedRun(100, ({"step": 90, "loss": 3.0},)), tmp_path)
    carry(checkpoint, tmp_path / "carried")
    run = read_carried(tmp_path / "carried")
    assert run.steps == 107
    assert run.history == ({"step": 90, "loss": 3.0}, {"step": 105, "loss": 2.0})
    assert run.extended([{"step": 1, "loss": 1.0}])[-1] == {"step": 108, "loss": 1.0}


def test_carried_weights_are_the_checkpoints_own(checkpoint, tmp_path):
    carry(checkpoint, tmp_path / "carried")
    torch.manual_seed(2)
    model = UniDiffForBlockDiffusion(UniDiffConfig())
    load_carried_weights(model, tmp_path / "carried")
    saved = UniDiffForBlockDiffusion.from_pretrained(checkpoint)
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


def test_weights_of_another_architecture_are_refused(checkpoint, tmp_path):
    carry(checkpoint, tmp_path / "carried")
    other = UniDiffForBlockDiffusion(UniDiffConfig(num_hidden_layers=3))
    with pytest.raises(ValueError, match="another architecture"):
        load_carried_weights(other, tmp_path / "carried")


def test_a_finished_checkpoint_is_read_as_a_carried_run(tmp_path):
    log = {"step": 9, "max_steps": 9, "is_averaged": True, "history": [{"step": 5, "loss": 1.0}]}
    (tmp_path / "training_log.json").write_text(json.dumps(log))
    assert read_carried(tmp_path) == CarriedRun(9, ({"step": 5, "loss": 1.0},))
    assert start_of(tmp_path) == CarriedRun()  # a run's own folder is not carried by its result


def test_a_folder_that_is_no_carried_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a carried run"):
        read_carried(tmp_path)
    assert start_of(tmp_path) == CarriedRun()


class Echo:
    name = "echo"

    def __len__(self) -> int:
        return 5

    def row(self, index, rng):
        return (index, float(rng.random()))


def test_a_stream_that_starts_later_gives_the_later_items_of_the_whole_one():
    sources = [Weighted(Echo(), 2)]
    whole = MixtureStream(sources, 20, seed=3)
    later = MixtureStream(sources, 8, seed=3, first=12)
    assert [later[i] for i in range(8)] == [whole[i] for i in range(12, 20)]
