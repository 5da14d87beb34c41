"""A plugin brings a new kind of token: coded, asked for, decoded, trained, saved and loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unidiff.bundled import bundled_checkpoint
from unidiff.data.blocks import BlockOptions, blocks_row
from unidiff.data.collator import BlockCollator
from unidiff.model.growth import grow_vocabulary
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.streams import training_streams
from unidiff.plugins import Plugin, add_modalities, registered
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.training.adapter_folder import record_of, save_adapter
from unidiff.training.lora import LoRAOptions, add_lora
from unidiff.training.objective import BlockObjective, ModalityLoss

PITCHES = np.linspace(100.0, 600.0, 6)


class Tones:
    """Six pitches in hertz, coded to the nearest."""

    name = "tone"
    plugin = "tones"
    num_codes = 6
    grid = (2, 3)

    def encode(self, value):
        return np.abs(np.asarray(value)[:, None] - PITCHES).argmin(1)

    def decode(self, codes):
        return PITCHES[np.asarray(codes)]

    def save_pretrained(self, folder):
        (Path(folder) / "pitches.json").write_text(json.dumps(PITCHES.tolist()))

    @classmethod
    def from_pretrained(cls, folder):
        assert json.loads((Path(folder) / "pitches.json").read_text()) == PITCHES.tolist()
        return cls()

    @classmethod
    def default(cls):
        return cls()


PLUGIN = Plugin("tones", modalities=(Tones,))
TUNE = [100.0, 210.0, 290.0, 400.0, 490.0, 600.0]


@pytest.fixture(scope="module")
def grown():
    """(model, processor, new ids) of the bundled checkpoint that has heard of tones."""
    folder = bundled_checkpoint()
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    processor = UniDiffProcessor.from_pretrained(folder)
    with registered(PLUGIN):
        new_ids = add_modalities(model, processor, {"text", "tone"})
        assert add_modalities(model, processor, {"tone"}) == ()
    return model, processor, new_ids


def turns(*content, answer=None):
    said = [] if answer is None else [{"role": "assistant", "content": [answer]}]
    return [{"role": "user", "content": list(content)}, *said]


def test_the_new_ids_are_the_delimiters_and_the_codes(grown):
    _, processor, new_ids = grown
    layout = processor.layout
    assert list(new_ids) == [*layout.delimiters["tone"], *range(*_span(layout))]


def _span(layout):
    own = layout.range_of("tone")
    return own.start, own.stop


def test_the_old_ids_have_the_logits_that_they_had(grown):
    model, _, new_ids = grown
    base = UniDiffForBlockDiffusion.from_pretrained(bundled_checkpoint(), dtype=torch.float32)
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        old, new = base.eval()(ids).logits, model(ids).logits
    assert torch.equal(old[..., : new_ids[0]], new[..., : new_ids[0]])
    assert model.config.vocab_size > new_ids[-1]


def test_a_value_in_a_message_is_coded_between_delimiters_on_its_grid(grown):
    _, processor, _ = grown
    message = turns({"type": "tone", "tone": TUNE}, {"type": "text", "text": "which tune?"})
    ids = processor.build(message)["input_ids"][0].numpy()
    opening, closing = processor.layout.delimiters["tone"]
    first = int(np.flatnonzero(ids == opening)[0])
    assert ids[first + 7] == closing
    assert processor.layout.decode("tone", ids[first + 1 : first + 7]).tolist() == [*range(6)]
    spelled = processor.decode(ids, skip_special_tokens=False)
    assert "<|user|><|tone|><|/tone|>which tune?<|end|>" in spelled
    assert "tone" not in processor.decode(ids)
    row = processor.encoder.conversation(processor.coded(message))
    kinds = processor.layout.modality_ids(row.ids_L)
    assert (kinds == row.modality_L).all()
    assert kinds[first + 1 : first + 7].tolist() == [4] * 6


def test_codes_may_stand_for_the_value_and_their_number_is_checked(grown):
    _, processor, _ = grown
    by_value = processor.build(turns({"type": "tone", "tone": TUNE}))
    by_codes = processor.build(turns({"type": "tone", "codes": [*range(6)]}))
    assert torch.equal(by_value["input_ids"], by_codes["input_ids"])
    with pytest.raises(ValueError, match="tone needs 6 codes, got 5"):
        processor.build(turns({"type": "tone", "codes": [*range(5)]}))
    with pytest.raises(ValueError, match="needs one of"):
        processor.build(turns({"type": "tone", "text": "x"}))
    with pytest.raises(ValueError, match="part's type must be"):
        processor.build(turns({"type": "smell", "smell": 1}))


@torch.no_grad()
def test_a_value_is_generated_on_its_grid_and_decoded(grown):
    model, processor, _ = grown
    inputs = processor.build(turns({"type": "text", "text": "sing"}), "tone")
    output = model.generate(**inputs, max_denoising_steps=3, do_sample=False)
    (tune,) = processor.post_process(output, inputs)
    assert tune.shape == (6,)
    assert set(tune) <= set(PITCHES)
    with pytest.raises(ValueError, match="or one or more of"):
        processor.build(turns({"type": "text", "text": "?"}), "smell")


def test_a_training_row_is_one_block_and_its_loss_is_counted_by_name(grown):
    model, processor, _ = grown
    message = turns({"type": "text", "text": "sing"}, answer={"type": "tone", "tone": TUNE})
    row = blocks_row(
        processor.encoder.conversation(processor.coded(message)),
        processor.layout,
        BlockOptions(max_block_length=2),
        np.random.default_rng(0),
    )
    assert (row.labels >= 0).sum() == 6
    assert set(row.block_ids[row.labels >= 0]) == {0}
    time, row_of_grid, column = row.position_ids[:, row.labels >= 0]
    assert len(set(time)) == 1
    assert (row_of_grid - row_of_grid.min()).tolist() == [0, 0, 0, 1, 1, 1]
    assert (column - column.min()).tolist() == [0, 1, 2, 0, 1, 2]
    batch = BlockCollator()([{"row": row, "key": 1, "stream_position": 0}])
    loss, parts = BlockObjective()(model, batch, model.config)
    assert int(parts["tone_count"]) == 6
    full = ModalityLoss("cosine", elbo_weights=False, coefficient=0.5, full_share=1.0)
    for kind, number in (({"further": full}, 6), ({"image": full}, None)):
        masked, weight = BlockObjective(**kind).corrupt(training_streams(batch, None))
        assert (int(masked.sum()) == 6 and float(weight.sum()) == 3.0) == (number == 6)
    assert float(parts["tone_sum"].detach()) == pytest.approx(6 * float(loss.detach()), rel=1e-5)


def test_a_saved_processor_loads_the_modality_when_it_is_first_needed(grown, tmp_path):
    _, processor, _ = grown
    files = processor.save_pretrained(tmp_path)
    assert str(tmp_path / "modalities" / "tone" / "pitches.json") in files
    again = UniDiffProcessor.from_pretrained(tmp_path)
    codes = turns({"type": "tone", "codes": [*range(6)]})
    assert torch.equal(again.build(codes)["input_ids"], processor.build(codes)["input_ids"])
    with pytest.raises(ImportError, match="install the package that brings it"):
        again.modality("tone")
    with registered(PLUGIN):
        assert isinstance(again.modality("tone"), Tones)
    (tmp_path / "modalities" / "tone" / "modality.json").write_text('{"name": "tone"}')
    with pytest.raises(ValueError, match="must name the modality"):
        UniDiffProcessor.from_pretrained(tmp_path).modality("tone")
    (tmp_path / "modalities" / "tone" / "modality.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"modality\.json is missing"):
        UniDiffProcessor.from_pretrained(tmp_path).modality("tone")


def test_a_modality_that_does_not_fit_is_refused(grown):
    _, processor, _ = grown

    class Fewer(Tones):
        num_codes = 5

    class Image(Tones):
        name = "image"

    class Silent(Tones):
        encode = property()

    for kind, error, words in (
        (Fewer, ValueError, "has 6 codes"),
        (Image, ValueError, "another name"),
        (Silent, TypeError, "lacks"),
    ):
        with pytest.raises(error, match=words):
            processor.add_modality(kind())
    with pytest.raises(ValueError, match="one installed plugin, got"):
        add_modalities(None, UniDiffProcessor.from_pretrained(bundled_checkpoint()), {"smell"})


def loaded():
    folder = bundled_checkpoint()
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    return model, UniDiffProcessor.from_pretrained(folder)


def test_a_model_grows_to_a_processor_that_knew_the_modality_before():
    model, processor = loaded()
    processor.add_modality(Tones())
    with registered(PLUGIN):
        new_ids = add_modalities(model, processor, {"tone"})
    assert len(new_ids) == 8
    assert model.config.layout == processor.layout


def test_an_encoder_that_was_used_before_learns_of_the_modality():
    _, processor = loaded()
    processor.build(turns({"type": "text", "text": "hello"}))
    processor.add_modality(Tones())
    assert processor.build(turns({"type": "tone", "tone": TUNE}))["input_ids"].shape[1] > 8


def test_nothing_is_changed_where_one_modality_is_brought_by_nobody():
    model, processor = loaded()
    before = processor.layout
    with registered(PLUGIN), pytest.raises(ValueError, match="'smell' must be brought by one"):
        add_modalities(model, processor, {"tone", "smell"})
    assert processor.layout == model.config.layout == before


def adapter(folder, new_ids=(), base=None):
    """An adapter folder with random weights; with new ids it knows tones."""
    model, processor = loaded()
    record = record_of(model, "t")
    if new_ids:
        processor = base[1]
        grow_vocabulary(model, processor.layout)
    add_lora(model, LoRAOptions(r=2, target_modules=("q_proj",), new_ids=tuple(new_ids)))
    for name, weight in model.named_parameters():
        if "lora_B" in name or "trainable_tokens_delta" in name:
            torch.nn.init.normal_(weight.data, std=0.1)
    save_adapter(model, folder, processor, record)
    return folder


@torch.no_grad()
def test_adapters_with_and_without_rows_load_in_any_order_and_are_saved_again(grown, tmp_path):
    with_rows = adapter(tmp_path / "a", grown[2], grown)
    without = adapter(tmp_path / "t")
    ids = torch.arange(4, 40)[None]
    logits = []
    for first, second in ((with_rows, without), (without, with_rows)):
        model, _ = loaded()
        record = record_of(model, "t")
        model.load_adapter(first, adapter_name=first.name)
        model.load_adapter(second, adapter_name=second.name)
        for name in ("a", "t"):
            model.set_adapter(name)
            logits.append(model(ids).logits)
        save_adapter(model, tmp_path / f"again-{first.name}", grown[1], record, name="t")
    assert torch.equal(logits[0], logits[2])
    assert torch.equal(logits[1], logits[3])
    one, other = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (without, tmp_path / "again-a")
    )
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_adapter_fits_a_model_that_knows_more(grown, tmp_path):
    folder = adapter(tmp_path / "a", grown[2], grown)
    model, _ = loaded()
    grow_vocabulary(model, grown[1].layout.extended("smell", 3))
    model.load_adapter(folder)
    other, _ = loaded()
    grow_vocabulary(other, other.config.layout.extended("smell", 3))
    with pytest.raises(ValueError, match=r"does not hold \['smell'\]"):
        other.load_adapter(folder)


def test_a_modality_that_was_never_needed_is_saved_without_its_plugin(grown, tmp_path):
    grown[1].save_pretrained(tmp_path / "first")
    UniDiffProcessor.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    first, second = (
        sorted((tmp_path / name / "modalities").rglob("*.json")) for name in ("first", "second")
    )
    assert [one.read_bytes() for one in first] == [one.read_bytes() for one in second] != []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "image"}, "none of"),
        ({"name": "Bad Name"}, "lower case"),
        ({"plugin": "other"}, "not its own"),
    ],
)
def test_a_plugin_whose_modality_has_no_good_name_is_refused(fields, words):
    kind = type("Odd", (Tones,), fields)
    with pytest.raises(ValueError, match=words), registered(Plugin("tones", modalities=(kind,))):
        pass
    with (
        pytest.raises(ValueError, match="of one name"),
        registered(Plugin("tones", modalities=(Tones, Tones))),
    ):
        pass


def test_two_adapters_of_one_seed_begin_alike():
    first, second, third = (
        add_lora(loaded()[0], LoRAOptions(r=2), seed=seed).state_dict() for seed in (0, 0, 1)
    )
    name = next(key for key in first if "lora_A" in key)
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], third[name])


@pytest.mark.parametrize("grid", [(1, 2, 3), (1.0, 2), (0, 1)])
def test_a_grid_is_two_whole_numbers(grid):
    with pytest.raises(ValueError, match="must be"):
        loaded()[1].layout.extended("tone", 6, grid)


def test_an_adapter_folder_brings_modality_and_rows(grown, tmp_path):
    folder = bundled_checkpoint()
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    record = record_of(model, "sing")
    new_ids = tuple(grow_vocabulary(model, grown[1].layout))
    add_lora(model, LoRAOptions(r=2, target_modules=("q_proj",), new_ids=new_ids))
    for name, weight in model.named_parameters():
        if "lora_B" in name or "trainable_tokens_delta" in name:
            torch.nn.init.normal_(weight.data, std=0.1)
    save_adapter(model, tmp_path / "sing", grown[1], record)
    inputs = grown[1].build(turns({"type": "tone", "tone": TUNE}))
    again = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "sing", dtype=torch.float32).eval()
    with torch.no_grad():
        expected, found = (one(inputs["input_ids"]).logits for one in (model, again))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with registered(PLUGIN):
        processor = UniDiffProcessor.from_pretrained(tmp_path / "sing")
        assert torch.equal(
            processor.build(turns({"type": "tone", "tone": TUNE}))["input_ids"],
            inputs["input_ids"],
        )
