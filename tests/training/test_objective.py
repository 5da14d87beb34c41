"""The block objective: the ELBO in expectation, and a sample's loss is its own."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unidiff.data.blocks import BlockOptions, blocks_row
from unidiff.data.collator import BlockCollator
from unidiff.model.likelihood import ar_nll, nll
from unidiff.model.streams import training_streams
from unidiff.tokens.sequence import join, run_of
from unidiff.training.laws import streams_of
from unidiff.training.objective import BlockObjective, ModalityLoss

TEXT_ONLY = BlockObjective(ar_weight=0.0)


@pytest.fixture
def model(tiny: ModuleType) -> Any:
    return tiny.tiny_model(initializer_range=0.2).eval()


def samples_of(tiny: ModuleType, kind: str, count: int) -> list[dict[str, Any]]:
    source = {"text": tiny.Sentences, "image": tiny.Pictures}[kind]()
    return [
        {
            "row": source.row(key % 16, np.random.default_rng(key)),
            "key": 1000 + key,
            "stream_position": key,
        }
        for key in range(count)
    ]


def loss_of(objective: BlockObjective, model: Any, batch: dict[str, Tensor]) -> float:
    """Total, not normalised."""
    with torch.no_grad():
        return float(objective(model, batch, model.config, 1)[0])


def test_expected_text_loss_is_the_elbo(model: Any, tiny: ModuleType) -> None:
    sample = samples_of(tiny, "text", 3)[2]
    exact = nll(model, BlockCollator()([sample]), exact=True)
    copies = [{**sample, "key": key, "stream_position": key} for key in range(600)]
    with torch.no_grad():
        total, parts = TEXT_ONLY(model, BlockCollator()(copies), model.config)
    tokens = int(exact.num_tokens_B)
    assert parts["text_count"] == 600 * tokens
    # Stratified times leave less noise than the sampler's own error of one draw.
    error = float(nll(model, BlockCollator()([sample]), 200).standard_error_B) * (200 / 600) ** 0.5
    assert float(total) * tokens == pytest.approx(float(exact.nats_B), abs=3 * error)
    assert float(parts["text_sum"]) / 600 == pytest.approx(float(total) * tokens, rel=1e-5)


@pytest.mark.parametrize("shift", [0, 1])
def test_the_elbo_is_expected_of_complementary_noise_too(shift: int, tiny: ModuleType) -> None:
    model = tiny.tiny_model(initializer_range=0.2, logits_shift=shift).eval()
    sample = samples_of(tiny, "text", 3)[2]
    exact = nll(model, BlockCollator()([sample]), exact=True)
    copies = [{**sample, "key": key, "stream_position": key} for key in range(300)]
    objective = BlockObjective(ar_weight=0.0, complementary=True)
    with torch.no_grad():
        total, parts = objective(model, BlockCollator()(copies), model.config)
    tokens = int(exact.num_tokens_B)
    assert parts["text_count"] == 300 * tokens
    error = float(nll(model, BlockCollator()([sample]), 200).standard_error_B) * (200 / 300) ** 0.5
    assert float(total) * tokens == pytest.approx(float(exact.nats_B), abs=3 * error)


def test_unweighted_complementary_noise_learns_each_token_once(tiny: ModuleType) -> None:
    model = tiny.tiny_model().eval()
    torch.nn.init.zeros_(model.lm_head.weight)  # every id is as likely
    objective = BlockObjective(
        text=ModalityLoss(elbo_weights=False), ar_weight=0.0, complementary=True
    )
    batch = BlockCollator()(samples_of(tiny, "text", 5))
    num_ids = int(tiny.LAYOUT.allowed_ids("text", 32).sum())
    per_token = loss_of(objective, model, batch) / int((batch["labels"] >= 0).sum())
    assert per_token == pytest.approx(np.log(num_ids), rel=1e-5)


@pytest.mark.parametrize("complementary", [False, True])
def test_the_first_token_of_a_block_is_read_from_the_context_row_once_for_each_loss(
    complementary: bool, tiny: ModuleType
) -> None:
    """Under `logits_shift=1` and blocks of one, both losses are the autoregressive reading."""
    model = tiny.tiny_model(initializer_range=0.2, logits_shift=1).eval()
    samples = samples_of(tiny, "text", 4)
    for sample in samples:
        index = sample["row"].token_index
        in_context = sample["row"].context_mask
        sample["row"].block_ids[:] = np.where((index > 1) & in_context, index, -1)
        sample["row"].labels[~in_context] = -100
    batch = BlockCollator()(samples)
    expected = float(ar_nll(model, batch).sum())
    objective = BlockObjective(ar_weight=0.5, complementary=complementary)
    _, parts = objective(model, batch, model.config)
    assert float(parts["text_sum"]) == pytest.approx(expected, rel=1e-5)
    assert float(parts["ar_sum"]) == pytest.approx(expected, rel=1e-5)


def test_autoregressive_part_is_the_successor_reading(model: Any, tiny: ModuleType) -> None:
    batch = BlockCollator()(samples_of(tiny, "text", 5))
    both = loss_of(BlockObjective(ar_weight=0.5), model, batch)
    alone = loss_of(TEXT_ONLY, model, batch)
    expected = float(ar_nll(model, batch).sum())
    assert both - alone == pytest.approx(0.5 * expected, rel=1e-4)
    _, parts = BlockObjective()(model, batch, model.config)
    assert float(parts["ar_sum"]) == pytest.approx(expected, rel=1e-5)
    assert parts["ar_count"] == (training_streams(batch, None).successor_labels() >= 0).sum()


def left_to_right_pictures(tiny: ModuleType, count: int) -> list[dict[str, Any]]:
    """Pictures of four codes behind two words, without a canvas."""
    options, generator = BlockOptions(left_to_right=True), np.random.default_rng(0)
    samples = []
    for key in range(count):
        codes = generator.integers(24, 32, 4)
        sequence = join([run_of([2, 4 + key], "text"), run_of(codes, "image", wanted=True)])
        row = blocks_row(sequence, tiny.LAYOUT, options, generator)
        samples.append({"row": row, "key": key, "stream_position": key})
    return samples


def test_other_modalities_may_be_read_left_to_right(model: Any, tiny: ModuleType) -> None:
    samples = left_to_right_pictures(tiny, 3)
    objective = BlockObjective(ar_weight=1.0, ar_modalities=("image",))
    with torch.no_grad():
        loss, parts = objective(model, BlockCollator()(samples), model.config)
        expected = torch.zeros(())
        for one in samples:
            row = one["row"]
            logits = model(
                torch.from_numpy(row.input_ids)[None],
                position_ids=torch.from_numpy(row.position_ids)[:, None],
                id_range=(24, 32),
            ).logits[0]
            target = torch.from_numpy(row.input_ids[2:] - 24)
            expected += torch.nn.functional.cross_entropy(logits[1:-1], target, reduction="sum")
    assert parts["ar_count"] == 12
    assert float(parts["ar_sum"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss) == pytest.approx(float(expected) / 12, rel=1e-5)


def test_the_reading_covers_text_alone_unless_told_otherwise(model: Any, tiny: ModuleType) -> None:
    batch = BlockCollator()(samples_of(tiny, "text", 3) + left_to_right_pictures(tiny, 3))
    default = BlockObjective()(model, batch, model.config)
    named = BlockObjective(ar_modalities=("text",))(model, batch, model.config)
    both = BlockObjective(ar_modalities=("text", "image"))(model, batch, model.config)
    assert default[0] == named[0]
    assert both[1]["ar_count"] == default[1]["ar_count"] + 12
    assert both[1]["ar_sum"] > default[1]["ar_sum"]
    with pytest.raises(ValueError, match="unknown modality 'sound'"):
        BlockObjective(ar_modalities=("sound",))(model, batch, model.config)


def test_a_samples_loss_does_not_depend_on_its_batch(model: Any, tiny: ModuleType) -> None:
    samples = samples_of(tiny, "text", 6) + samples_of(tiny, "image", 4)
    objective = BlockObjective()
    alone = sum(loss_of(objective, model, BlockCollator()([s])) for s in samples)
    assert loss_of(objective, model, BlockCollator()(samples)) == pytest.approx(alone, rel=1e-5)
    for length in (24, 64):
        packed = BlockCollator(packed_length=length)(samples[::-1])
        assert loss_of(objective, model, packed) == pytest.approx(alone, rel=1e-5)


def test_gradients_of_micro_batches_add_up(model: Any, tiny: ModuleType) -> None:
    samples = samples_of(tiny, "text", 4) + samples_of(tiny, "image", 4)
    tokens = int((BlockCollator()(samples)["labels"] != -100).sum())
    gradients = []
    for size in (8, 2):
        model.zero_grad()
        for start in range(0, 8, size):
            batch = BlockCollator()(samples[start : start + size])
            BlockObjective()(model, batch, model.config, tokens)[0].backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_loss_is_normalised_by_response_tokens_not_by_masked_ones(
    model: Any, tiny: ModuleType
) -> None:
    batch = BlockCollator()(samples_of(tiny, "text", 7))
    tokens = int((batch["labels"] != -100).sum())
    total = float(BlockObjective()(model, batch, model.config)[0].detach())
    assert total * tokens == pytest.approx(loss_of(BlockObjective(), model, batch), rel=1e-5)


def test_text_weights_are_the_elbos_and_images_are_unweighted(tiny: ModuleType) -> None:
    objective = BlockObjective(image=ModalityLoss("cosine", elbo_weights=False, coefficient=0.3))
    text = training_streams(BlockCollator()(samples_of(tiny, "text", 200)), None)
    masked, weight = objective.corrupt(text)
    for row in range(200):
        for group in text.canvas_group_BK[row][text.can_mask_BK[row]].unique():
            at = (text.canvas_group_BK[row] == group) & text.can_mask_BK[row]
            size, count = int(at.sum()), int(masked[row][at].sum())
            assert count >= 1
            assert weight[row][at & masked[row]].tolist() == pytest.approx([size / count] * count)
    assert not masked[~text.can_mask_BK].any()
    assert not weight[~masked].any()
    image = training_streams(BlockCollator()(samples_of(tiny, "image", 400)), None)
    masked, weight = objective.corrupt(image)
    torch.testing.assert_close(weight[masked], torch.full((int(masked.sum()),), 0.3))
    # ceil(4 cos(u)), u uniform on [0, pi/2]
    shares = torch.bincount(masked.sum(1), minlength=5)[1:] / 400
    edges = np.arccos(np.arange(5) / 4) / (np.pi / 2)
    assert shares.tolist() == pytest.approx((edges[:-1] - edges[1:]).tolist(), abs=0.02)


def test_full_share_masks_everything_at_that_share_of_the_times(tiny: ModuleType) -> None:
    loss = ModalityLoss("cosine", elbo_weights=False, full_share=0.75)
    image = training_streams(BlockCollator()(samples_of(tiny, "image", 400)), None)
    masked, weight = BlockObjective(image=loss).corrupt(image)
    # The rest follows ceil(4 cos(u)), which is 4 up to arccos(3/4).
    still_full = np.arccos(3 / 4) / (np.pi / 2)
    share = float((masked.sum(1) == 4).float().mean())
    assert share == pytest.approx(0.75 + 0.25 * still_full, abs=0.01)
    assert masked.sum(1).min() == 1
    assert weight[masked].eq(1.0).all()
    everything = ModalityLoss("cosine", elbo_weights=False, full_share=1.0)
    assert BlockObjective(image=everything).corrupt(image)[0].all()


def test_a_coefficient_scales_the_loss_and_not_the_log(model: Any, tiny: ModuleType) -> None:
    batch = BlockCollator()(samples_of(tiny, "image", 8))
    runs = []
    for coefficient in (1.0, 0.25):
        loss = ModalityLoss("cosine", elbo_weights=False, coefficient=coefficient)
        total, parts = BlockObjective(image=loss)(model, batch, model.config)
        runs.append((float(total.detach()), float(parts["image_sum"]), int(parts["image_count"])))
    assert runs[1][0] == pytest.approx(0.25 * runs[0][0], rel=1e-5)
    assert runs[1][1:] == pytest.approx(runs[0][1:], rel=1e-5)
    assert runs[0][2] == 32


def test_noise_follows_the_key_and_the_place_in_the_stream(tiny: ModuleType) -> None:
    first = samples_of(tiny, "text", 30)
    others = [{**s, "key": s["key"] + 500} for s in first]
    later = [{**s, "stream_position": s["stream_position"] + 13} for s in first]
    masks = [
        TEXT_ONLY.corrupt(training_streams(BlockCollator()(samples), None))[0]
        for samples in (first, first, others, later)
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0].sum(), masks[2].sum())  # the times are the same, not the places
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0].sum(1), masks[3].sum(1))


def test_a_grid_model_reads_successors_at_block_ends_only(tiny: ModuleType) -> None:
    model = tiny.tiny_model(attention_pattern="block_causal", canvas_length=4).eval()
    batch = BlockCollator()(samples_of(tiny, "text", 4))
    _, parts = BlockObjective()(model, batch, model.config)
    _, causal = BlockObjective()(model, batch, tiny.tiny_model().config)
    assert 0 < parts["ar_count"] < causal["ar_count"] / 2


def test_elbo_weights_with_a_full_share_are_one_where_all_is_masked() -> None:
    loss = ModalityLoss(full_share=0.25)
    time = torch.tensor([0.1, 0.2499, 0.25, 0.625, 1.0])
    assert loss.mask_rate(time).tolist() == pytest.approx([1.0, 1.0, 0.0, 0.5, 1.0], abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "sine"}, "schedule must be one of"),
        ({"schedule": "cosine"}, "'linear'"),
        ({"full_share": 1.5, "elbo_weights": False}, r"\[0, 1\]"),
    ],
)
def test_impossible_losses_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModalityLoss(**fields)


def test_blocks_are_refused_under_full_attention(tiny: ModuleType) -> None:
    model = tiny.tiny_model(attention_pattern="full")
    batch = BlockCollator()(samples_of(tiny, "text", 1))
    with pytest.raises(ValueError, match="one canvas"):
        BlockObjective()(model, batch, model.config)


def test_terms_that_compare_own_rows_refuse_weights_that_predict_successors(
    tiny: ModuleType,
) -> None:
    with pytest.raises(ValueError, match="logits_shift=0"):
        streams_of(samples_of(tiny, "text", 1), tiny.tiny_model(logits_shift=1))


def test_visible_tokens_shown_wrong_are_learnt_right(model: Any, tiny: ModuleType) -> None:
    """What is shown wrong is another id of its modality, and every label is learnt."""
    batch = BlockCollator()(samples_of(tiny, "image", 40))
    plain = BlockObjective(ar_weight=0.0)
    wrong = BlockObjective(ar_weight=0.0, wrong_share=0.5, visible_weight=0.1)
    streams = training_streams(batch, None)
    is_masked, _ = plain.corrupt(streams)
    shown = wrong._shown(streams, is_masked, model.config)
    clean = streams.canvas_values("input_ids")
    assert (shown[is_masked] == model.config.mask_token_id).all()
    is_seen = streams.can_mask_BK & ~is_masked
    share = float((shown != clean)[is_seen].float().mean())
    assert share == pytest.approx(0.5, abs=0.1)
    ids = model.config.layout.range_of("image")
    assert ((shown[is_seen] >= ids.start) & (shown[is_seen] < ids.stop)).all()
    is_pinned = ~streams.can_mask_BK
    assert torch.equal(shown[is_pinned], clean[is_pinned])
    # The loss of the visible tokens is added, at its own weight.
    masked_only = BlockObjective(ar_weight=0.0, wrong_share=0.5, visible_weight=0.0)
    base, tenth = loss_of(masked_only, model, batch), loss_of(wrong, model, batch)
    full = loss_of(BlockObjective(ar_weight=0.0, wrong_share=0.5, visible_weight=1.0), model, batch)
    assert tenth - base == pytest.approx(0.1 * (full - base), rel=1e-3)
    assert full - base > 1
