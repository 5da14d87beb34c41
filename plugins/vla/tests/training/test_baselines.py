"""Masked policy and baselines on an expert that passes a post on the left or on the right.

    python -m pytest plugins/vla/tests/training/test_baselines.py

The observation is always the same; half of the chunks pass left, at codes 0 and 1 throughout, half
right, at codes 6 and 7. Optimised by AdamW in a plain loop: seconds on one thread.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from unidiff_vla.policy import (
    ActionRegressor,
    ChunkPolicy,
    MaskedDiffusionPolicy,
    PolicySettings,
    RegressionPolicy,
    load_policy,
)
from unidiff_vla.training import PolicyRecipe
from unidiff_vla.training.objectives import (
    policy_blocks,
    policy_model,
    policy_objective,
    policy_settings,
)
from unidiff_vla.training.run import policy_config
from unidiff_vla.training.source import CodedFrames, Recorded

from unidiff.bundled import bundled_checkpoint
from unidiff.data.collator import BlockCollator
from unidiff.data.tasks import RowMaker
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.tokens.image_processing import UniDiffImageProcessor
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.sequence import SequenceEncoder
from unidiff.training.optimizer import OptimizerOptions, build_optimizer

HORIZON, NUM_BINS, NUM_DRAWS, STEPS, BATCH = 4, 8, 200, 300, 32
ACTIONS = BinTokenizer((-1.0,), (1.0,), NUM_BINS, HORIZON)
STATES = BinTokenizer((-1.0,), (1.0,), 4)
TOKENIZER = AutoTokenizer.from_pretrained(bundled_checkpoint())
RECIPE = PolicyRecipe(
    horizon=HORIZON,
    levels=(3, 3),
    full_share=0.25,
    wrong_share=0.0,
    hidden_size=64,
    num_layers=2,
    intermediate_size=64,
)
SETTINGS = PolicySettings(
    decoding={
        "do_sample": True,
        "unmasking_strategy": "random",
        "max_denoising_steps": HORIZON,
    }
)
OBSERVATION = {
    "image": np.full((8, 8, 3), 90, dtype=np.uint8),
    "state": np.zeros(1, dtype=np.float32),
    "instruction": "pass the post",
}


def passes(processor: UniDiffProcessor) -> CodedFrames:
    """Chunks of both modes behind one observation."""
    rng = np.random.default_rng(0)
    number = 64
    side = np.arange(number)[:, None, None] % 2 * 6
    codes = processor.image_codes(processor.picture(OBSERVATION["image"]))
    return CodedFrames(
        pictures=np.tile(np.asarray(codes).reshape(1, 1, -1), (number, 1, 1)),
        states=np.tile(STATES.encode(OBSERVATION["state"]), (number, 1)),
        chunks=side + rng.integers(0, 2, (number, HORIZON, 1)),
        instruction_index=np.zeros(number, dtype=np.int64),
        instructions=(OBSERVATION["instruction"],),
        task_of=(0,),
        still=np.full((HORIZON, 1), 4),
        episode_index=np.arange(number),
        is_fresh=np.ones(number, dtype=bool),
        turns=np.zeros(0, dtype=np.int64),
    )


def foreseen_passes(processor: UniDiffProcessor) -> CodedFrames:
    """The passes, each followed by a frame whose codes are 1 on the left and 7 on the right."""
    seen = passes(processor)
    is_right = seen.chunks[:, 0] > 3
    after = np.where(is_right, 7, 1)[:, None] * np.ones_like(seen.pictures)
    return replace(
        seen,
        pictures=np.concatenate([seen.pictures, after], axis=1).reshape(-1, 1, after.shape[2]),
        states=seen.states.repeat(2, 0),
        chunks=seen.chunks.repeat(2, 0),
        instruction_index=seen.instruction_index.repeat(2),
        episode_index=seen.episode_index.repeat(2),
        is_fresh=seen.is_fresh.repeat(2),
    )


def rows_of(
    objective: str, processor: UniDiffProcessor, future_share: float = 0.0
) -> Callable[[int], dict[str, Any]]:
    """Batches of the passes as an objective reads them."""
    maker = RowMaker(SequenceEncoder(TOKENIZER, processor.layout), policy_blocks(objective))
    frames = foreseen_passes(processor) if future_share else passes(processor)
    source = Recorded(maker, frames, future_share=future_share)
    first = range(0, len(source), 2 if future_share else 1)
    rows = [source.row(index, np.random.default_rng(index)) for index in first]

    def batch(step: int) -> dict[str, Any]:
        places = range(step * BATCH, (step + 1) * BATCH)
        return BlockCollator()(
            [{"row": rows[i % len(rows)], "key": i, "stream_position": i} for i in places]
        )

    return batch


def new_policy(objective: str, trained: bool = True, future_share: float = 0.0) -> ChunkPolicy:
    """A policy of one objective on the passes, or with random weights."""
    recipe = replace(RECIPE, objective=objective, future_share=future_share)
    config = policy_config(TOKENIZER, recipe, (8, 8), STATES, ACTIONS)
    torch.manual_seed(0)
    image_model = FSQImageTokenizer(
        FSQImageTokenizerConfig(levels=(3, 3), hidden_sizes=(8, 8), image_size=8)
    )
    layout = replace(config.layout, image_grid=(2, 2))
    config.token_layout = layout.to_dict()
    processor = UniDiffProcessor(
        image_processor=UniDiffImageProcessor(size={"height": 8, "width": 8}),
        tokenizer=TOKENIZER,
        token_layout=layout,
        action_bins=ACTIONS,
        state_bins=STATES,
        image_model=image_model.eval(),
    )
    model = policy_model(objective, config)
    if trained:
        train(model, recipe, rows_of(objective, processor, future_share))
    policy = RegressionPolicy if objective == "regression" else MaskedDiffusionPolicy
    return policy(model.eval(), processor, policy_settings(objective, SETTINGS))


def train(model: Any, recipe: PolicyRecipe, batch: Callable[[int], dict[str, Any]]) -> None:
    objective = policy_objective(recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for step in range(STEPS):
        loss, _ = objective(model, batch(step), model.config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@pytest.fixture(scope="module")
def policy_of() -> Callable[[str], ChunkPolicy]:
    """Trained policies, each made when it is first asked for."""
    torch.set_num_threads(1)
    made: dict[str, ChunkPolicy] = {}

    def policy(objective: str) -> ChunkPolicy:
        if objective not in made:
            made[objective] = new_policy(objective)
        return made[objective]

    return policy


def shares(policy: ChunkPolicy) -> tuple[float, float]:
    """Shares of sampled chunks that pass left, and right, at every timestep."""
    aside = policy.predict_action_chunk([OBSERVATION] * NUM_DRAWS, seed=3)[..., 0]
    left, right = (aside < -0.45).all(1).mean(), (aside > 0.45).all(1).mean()
    print(type(policy).__name__, policy.settings.decoding, left, right)
    return float(left), float(right)


@pytest.mark.parametrize("objective", ["masked", "ar"])
def test_decoding_in_steps_keeps_both_modes(
    objective: str, policy_of: Callable[[str], ChunkPolicy]
) -> None:
    left, right = shares(policy_of(objective))
    assert left + right >= 0.95
    assert min(left, right) >= 0.25
    assert policy_of(objective).last_record.num_forwards == (HORIZON,) * NUM_DRAWS


def test_the_foreseen_picture_is_that_of_the_planned_side() -> None:
    torch.set_num_threads(1)
    policy = new_policy("masked", future_share=0.5)
    left, right = shares(policy)  # planned alone
    assert left + right >= 0.95
    assert min(left, right) >= 0.25
    decoding = {**SETTINGS.decoding, "max_denoising_steps": 8}
    settings = PolicySettings(decoding=decoding, foresees=True)
    seer = MaskedDiffusionPolicy(policy.model, policy.processor, settings)
    aside = seer.predict_action_chunk([OBSERVATION] * NUM_DRAWS, seed=3)[..., 0]
    pictures = [
        seer.processor.decode_image(seer.processor.layout.encode("image", np.full(4, code)))
        for code in (1, 7)
    ]
    said = np.array(
        [
            [np.array_equal(np.asarray(one), np.asarray(picture)) for picture in pictures]
            for one in seer.last_record.futures
        ]
    )
    agrees = np.where(aside[:, 0] < 0, said[:, 0], said[:, 1])
    print("both", (aside < -0.45).all(1).mean(), (aside > 0.45).all(1).mean(), agrees.mean())
    assert not np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1]))
    assert agrees.mean() >= 0.9
    assert 0.25 <= (aside[:, 0] < 0).mean() <= 0.75


def test_one_step_decoding_mixes_the_modes_within_a_chunk(
    policy_of: Callable[[str], ChunkPolicy],
) -> None:
    left, right = shares(policy_of("parallel"))
    # Independent draws at four timesteps: 2 / 16 of the chunks are whole.
    assert left + right == pytest.approx(1 / 8, abs=0.09)
    assert policy_of("parallel").last_record.num_forwards == (1,) * NUM_DRAWS


def test_regression_gives_the_average_that_belongs_to_no_mode(
    policy_of: Callable[[str], ChunkPolicy],
) -> None:
    policy = policy_of("regression")
    chunk = policy.predict_action_chunk(OBSERVATION)[0]
    print("regression", chunk.tolist())
    assert np.abs(chunk).max() < 0.25
    assert policy.last_record.num_forwards == (1,)


def test_greedy_ar_takes_the_likeliest_of_teacher_forcing(
    policy_of: Callable[[str], ChunkPolicy],
) -> None:
    policy = policy_of("ar")
    actions = policy.processor.layout.range_of("action")
    chunk = policy.predict_action_chunk(OBSERVATION, do_sample=False)[0]
    codes = ACTIONS.encode(chunk).reshape(-1)
    row = rows_of("ar", policy.processor)(0)
    ids = row["input_ids"][:1].clone()
    ids[0, -HORIZON:] = torch.from_numpy(codes) + actions.start
    with torch.no_grad():
        logits = policy.model(
            ids, position_ids=row["position_ids"][:, :1], id_range=(actions.start, actions.stop)
        ).logits
    assert logits[0, -HORIZON - 1 : -1].argmax(-1).tolist() == codes.tolist()


def test_ar_keeps_the_actions_under_way(policy_of: Callable[[str], ChunkPolicy]) -> None:
    policy = policy_of("ar")
    for leftover in ([[-0.9], [-0.7]], [[0.9], [0.7]]):
        pinned = np.array(leftover, dtype=np.float32)
        chunk = policy.predict_action_chunk(OBSERVATION, leftover=pinned, inference_delay=2)[0]
        assert np.array_equal(chunk[:2], pinned)
        assert (np.sign(chunk[2:]) == np.sign(pinned)).all()
        assert policy.last_record.num_forwards == (2,)


def test_every_objective_reads_the_same_chunks() -> None:
    processor = new_policy("regression", trained=False).processor
    batches = [rows_of(name, processor)(0) for name in ("masked", "parallel", "ar", "regression")]
    wanted = [batch["labels"][batch["labels"] >= 0].tolist() for batch in batches]
    assert len(wanted[0]) == BATCH * HORIZON
    assert all(labels == wanted[0] for labels in wanted[1:])
    assert not (batches[2]["block_ids"] >= 0).any()


def test_the_regression_loss_is_the_squared_error_of_what_the_policy_says() -> None:
    policy = new_policy("regression", trained=False)
    with torch.no_grad():
        policy.model.value_head.weight.normal_(std=0.05)  # values that differ
    batch = rows_of("regression", policy.processor)(0)
    with torch.no_grad():
        loss, parts = policy_objective(replace(RECIPE, objective="regression"))(
            policy.model, batch, policy.model.config
        )
    said = policy.predict_action_chunk(OBSERVATION)[0]  # the range is -1 to 1
    chunks = ACTIONS.decode(passes(policy.processor).chunks[:BATCH])
    assert np.ptp(said) > 1e-4
    assert np.abs(said).max() < 1
    assert float(loss) == pytest.approx(float(((chunks - said) ** 2).mean()), rel=1e-4)
    assert parts == {}


def test_a_batch_of_prompts_gives_what_each_gives_alone() -> None:
    policy = new_policy("regression", trained=False)
    other = {**OBSERVATION, "instruction": "pass the post, then come back and wait"}
    together = policy.predict_action_chunk([OBSERVATION, other])
    for row, one in enumerate((OBSERVATION, other)):
        alone = policy.predict_action_chunk(one)[0]
        assert together[row] == pytest.approx(alone, abs=1e-5)
    assert not np.array_equal(together[0], together[1])


def test_the_value_head_is_optimised_as_a_head() -> None:
    model = new_policy("regression", trained=False).model
    optimizer = build_optimizer(model, OptimizerOptions())
    matrices = {id(one) for one in optimizer.parts[0].param_groups[0]["params"]}
    assert id(model.value_head.weight) not in matrices
    assert id(model.model.layers[0].mlp.down_proj.weight) in matrices


@pytest.mark.parametrize(
    ("settings", "call", "message"),
    [
        ({"inference_delay": 1, "replan_every": 1}, {}, "leave out inference_delay"),
        ({"warm_start": 0.5}, {}, "leave out inference_delay"),
        ({"foresees": True}, {}, "foresees"),
        ({}, {"leftover": np.zeros((2, 1)), "inference_delay": 1}, "leave out leftover"),
        ({}, {"do_sample": True}, r"leave out \['do_sample'\]"),
    ],
)
def test_regression_refuses_what_it_cannot_do(
    settings: dict[str, Any], call: dict[str, Any], message: str
) -> None:
    policy = new_policy("regression", trained=False)
    with pytest.raises(ValueError, match=message):
        RegressionPolicy(
            policy.model, policy.processor, PolicySettings(**settings)
        ).predict_action_chunk(OBSERVATION, **call)


def test_values_that_are_not_finite_are_refused() -> None:
    policy = new_policy("regression", trained=False)
    with torch.no_grad():
        policy.model.value_head.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        policy.predict_action_chunk(OBSERVATION)


PROGRAM = """
import json, sys
import numpy as np, torch
from unidiff_vla.policy import load_policy
torch.set_num_threads(1)
policy = load_policy(sys.argv[1])
seen = {"image": np.full((8, 8, 3), 90, dtype=np.uint8), "state": np.zeros(1, dtype=np.float32)}
seen["instruction"] = "pass the post"
actions = [policy.select_action(seen) for _ in range(3)]
print(json.dumps([type(policy).__name__, *[action.tobytes().hex() for action in actions]]))
"""


def test_a_new_process_repeats_a_regression_from_its_folder_alone(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    policy = new_policy("regression", trained=False)
    policy.settings = replace(policy.settings, ensemble_decay=0.1, replan_every=2)
    policy.save_pretrained(tmp_path)
    loaded = load_policy(tmp_path)
    assert isinstance(loaded, RegressionPolicy)
    assert isinstance(loaded.model, ActionRegressor)
    assert torch.equal(loaded.model.value_head.weight, policy.model.value_head.weight)
    assert (loaded.num_executed, loaded.horizon, loaded.dof) == (2, HORIZON, 1)
    with pytest.raises(ValueError, match="load_policy"):
        MaskedDiffusionPolicy.from_pretrained(tmp_path)
    loaded.reset(seed=4)
    actions = [loaded.select_action(OBSERVATION) for _ in range(3)]
    assert loaded.num_plans == 2
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    found = json.loads(ran.stdout.strip().splitlines()[-1])
    assert found == ["RegressionPolicy", *[action.tobytes().hex() for action in actions]]
