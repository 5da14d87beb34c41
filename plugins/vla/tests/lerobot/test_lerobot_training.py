"""`lerobot-train` trains, saves and resumes the policy; `lerobot-eval` runs what it saved."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="lerobot is absent: run `make test-lerobot`")

from lerobot_policy_unidiff.modeling_unidiff import UniDiffVLAPolicy

from unidiff.bundled import bundled_checkpoint


def test_train_saves_all_that_a_policy_needs(trained):
    folder = trained / "checkpoints" / "last" / "pretrained_model"
    assert json.loads((folder / "config.json").read_text())["type"] == "unidiff"
    assert (folder / "model.safetensors").is_file()
    assert (folder / "policy_preprocessor.json").is_file()
    assert (folder / "unidiff" / "processor_config.json").is_file()


def test_training_changes_the_weights_and_counts_batches(trained, policy):
    folder = trained / "checkpoints" / "000004" / "pretrained_model"
    after = UniDiffVLAPolicy.from_pretrained(folder)
    assert int(after.num_batches) == 4
    assert not after.training
    weight = after.model.model.embed_tokens.weight
    assert not np.array_equal(weight.detach(), policy.model.model.embed_tokens.weight.detach())


def test_train_resumes(command, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    folder = tmp_path / "run" / "checkpoints"
    command(
        "lerobot-train",
        f"--config_path={folder / '000002' / 'pretrained_model' / 'train_config.json'}",
        "--resume=true",
        "--steps=3",
        f"--output_dir={tmp_path / 'run'}",
    )
    resumed = UniDiffVLAPolicy.from_pretrained(folder / "000003" / "pretrained_model")
    assert int(resumed.num_batches) == 3
    step = json.loads((folder / "000003" / "training_state" / "training_step.json").read_text())
    assert step["step"] == 3


def test_train_starts_from_a_checkpoint(command, table_dataset, tmp_path):
    command(
        "lerobot-train",
        "--policy.type=unidiff",
        f"--policy.checkpoint={bundled_checkpoint()}",
        "--policy.device=cpu",
        "--dataset.repo_id=unidiff/table",
        f"--dataset.root={table_dataset}",
        "--steps=1",
        "--batch_size=2",
        "--num_workers=0",
        f"--output_dir={tmp_path / 'run'}",
    )
    folder = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    assert int(UniDiffVLAPolicy.from_pretrained(folder).num_batches) == 1


def test_eval_runs_a_trained_policy(command, trained, tmp_path):
    command(
        "lerobot-eval",
        f"--policy.path={trained / 'checkpoints' / 'last' / 'pretrained_model'}",
        "--policy.device=cpu",
        "--env.type=unidiff_vla",
        "--env.task=tabletop-reach",
        "--eval.n_episodes=2",
        "--eval.batch_size=2",
        f"--output_dir={tmp_path}",
    )
    overall = json.loads((tmp_path / "eval_info.json").read_text())["overall"]
    assert overall["n_episodes"] == 2
    assert len(list(tmp_path.glob("videos/*/*.mp4"))) == 2


def test_eval_runs_the_bundled_checkpoint_and_it_succeeds(command, tmp_path):
    command(
        "lerobot-eval",
        "--policy.type=unidiff",
        "--policy.device=cpu",
        "--env.type=unidiff_vla",
        "--env.task=tabletop-reach",
        "--eval.n_episodes=4",
        "--eval.batch_size=4",
        f"--output_dir={tmp_path}",
    )
    overall = json.loads((tmp_path / "eval_info.json").read_text())["overall"]
    assert overall["pc_success"] >= 75.0
