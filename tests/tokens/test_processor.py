"""The processor: what people use becomes prompt and canvas, and any ids become an answer."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

import unidiff
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.text import SPECIAL_TOKENS, build_text_tokenizer

MASK, END, ASSISTANT, IMAGE, ACTION = 1, 3, 5, 7, 11
PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
CORPUS = ["a photo of a sneaker. push the red puck. what is it?"] * 9


@pytest.fixture(scope="module")
def processor():
    torch.manual_seed(0)
    model = FSQImageTokenizer(
        FSQImageTokenizerConfig(
            hidden_sizes=[8, 8], num_encoder_blocks=0, num_decoder_blocks=0, num_stage_blocks=0
        )
    )
    return UniDiffProcessor(
        tokenizer=build_text_tokenizer(CORPUS, 300),
        image_model=model,
        action_bins=BinTokenizer((-1.0, -1.0), (1.0, 1.0), 256, horizon=8),
        state_bins=BinTokenizer((0.0, 0.0), (1.0, 1.0), 256),
    )


@pytest.fixture
def folder(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def chunk():
    return np.random.default_rng(1).uniform(-1, 1, (8, 2))


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def filled(inputs, ids):
    """What generate would return if it filled every hole from `ids`."""
    canvas = inputs["canvas"].clone()
    canvas[~inputs["pinned_mask"]] = torch.as_tensor(ids)
    return torch.cat([inputs["input_ids"], canvas], dim=1)


# --- prompts and canvases


def test_an_action_prompt_is_the_beginning_of_the_training_sequence(processor, chunk):
    inputs = processor.for_action(PICTURE, [0.25, 0.75], "push the red puck.")
    messages = user(
        {"type": "image", "image": PICTURE},
        {"type": "state", "state": [0.25, 0.75]},
        {"type": "text", "text": "push the red puck."},
    )
    messages.append({"role": "assistant", "content": [{"type": "action", "action": chunk}]})
    row = processor.encoder.conversation(processor.coded(messages))
    prompt = inputs["input_ids"][0].numpy()
    length = len(prompt)
    assert prompt.tolist() == row.ids_L[:length].tolist()
    assert prompt[-2:].tolist() == [ASSISTANT, ACTION]
    following = slice(length, length + 16)
    assert row.is_wanted_L[following].all()
    assert row.is_wanted_L.sum() == 16
    assert (row.modality_L[following] == inputs["canvas_modality_ids"][0].numpy()).all()
    assert (inputs["canvas"] == MASK).all()
    assert not inputs["pinned_mask"].any()


def test_an_image_prompt_is_the_beginning_of_the_training_sequence(processor):
    inputs = processor.for_image("draw a sneaker")
    messages = [
        *user({"type": "text", "text": "draw a sneaker"}),
        {"role": "assistant", "content": [{"type": "image", "image": PICTURE}]},
    ]
    row = processor.encoder.conversation(processor.coded(messages))
    length = inputs["input_ids"].shape[1]
    assert inputs["input_ids"][0].tolist() == row.ids_L[:length].tolist()
    assert inputs["input_ids"][0, -1] == IMAGE
    assert row.is_wanted_L[length : length + 64].all()
    assert inputs["canvas"].shape == (1, 64)
    assert (inputs["canvas_modality_ids"] == 1).all()


def test_a_canvas_of_two_kinds_is_the_end_of_the_training_sequence(processor):
    question = user({"type": "image", "image": PICTURE}, {"type": "text", "text": "push"})
    inputs = processor.build([question, question], want=("image", "action"))
    chunk = np.zeros(processor.layout.action_grid, dtype=np.int64)
    answer = [{"type": "image", "image": PICTURE}, {"type": "action", "codes": chunk}]
    whole = processor.coded([*question, {"role": "assistant", "content": answer}])
    row = processor.encoder.conversation(whole)
    length, size = inputs["input_ids"].shape[1], inputs["canvas"].shape[1]
    canvas = row[length : length + size]
    assert size == 64 + 2 + chunk.size
    assert inputs["input_ids"][1].tolist() == row.ids_L[:length].tolist()
    assert inputs["pinned_mask"][1].tolist() == (~canvas.is_wanted_L).tolist()
    assert inputs["canvas_modality_ids"][1].tolist() == canvas.modality_L.tolist()
    assert inputs["canvas"][1].tolist() == np.where(canvas.is_wanted_L, MASK, canvas.ids_L).tolist()
    filled = torch.from_numpy(row.ids_L[: length + size])[None].expand(2, -1)
    first, second = processor.post_process(filled, inputs)
    assert sorted(first) == ["action", "image"]
    assert np.array_equal(first["action"], second["action"])
    assert np.array_equal(first["action"], processor.bins_of("action").decode(chunk))


def test_a_chat_prompt_is_the_beginning_of_the_training_sequence(processor):
    question = user({"type": "image", "image": PICTURE}, {"type": "text", "text": "what is it?"})
    inputs = processor.for_chat(question)
    whole = [*question, {"role": "assistant", "content": "a sneaker."}]
    row = processor.encoder.conversation(processor.coded(whole))
    length = inputs["input_ids"].shape[1]
    assert inputs["input_ids"][0].tolist() == row.ids_L[:length].tolist()
    assert sorted(inputs) == ["attention_mask", "input_ids"]


def test_state_may_be_left_out_of_an_action_request(processor):
    inputs = processor.for_action(PICTURE, None, "push")
    state = processor.layout.ranges["state"]
    assert not ((inputs["input_ids"] >= state.start) & (inputs["input_ids"] < state.stop)).any()


@pytest.mark.parametrize("views", [[PICTURE, 255 - PICTURE], (PICTURE, 255 - PICTURE)])
def test_several_cameras_stand_one_after_the_other(processor, views):
    inputs = processor.for_action(views, [0.25, 0.75], "push")
    named = processor.for_action(
        dict(zip(("front", "wrist"), views, strict=True)), [0.25, 0.75], "push"
    )
    content = [{"type": "image", "image": view} for view in views]
    content += [{"type": "state", "state": [0.25, 0.75]}, {"type": "text", "text": "push"}]
    expected = processor.build(user(*content), want="action")
    for key in expected:
        assert torch.equal(inputs[key], expected[key])
        assert torch.equal(named[key], expected[key])
    assert (inputs["input_ids"] == IMAGE).sum() == 2


def test_one_camera_may_be_a_list_or_a_content_part(processor):
    expected = processor.for_action(PICTURE, None, "push")["input_ids"]
    part = {"type": "image", "codes": processor.image_codes(PICTURE)}
    for one in ([PICTURE], {"image": PICTURE}, part, [part], {"front": part}):
        assert torch.equal(processor.for_action(one, None, "push")["input_ids"], expected)
    for nothing in ([], {}):
        with pytest.raises(ValueError, match="at least one image"):
            processor.for_action(nothing, None, "push")


def test_rows_of_a_batch_are_padded_on_the_left(processor):
    together = processor.for_image(["draw a sneaker", "a"])
    alone = processor.for_image("a")
    length = alone["input_ids"].shape[1]
    assert together["input_ids"][1, -length:].tolist() == alone["input_ids"][0].tolist()
    assert together["attention_mask"][1].sum() == length
    assert (together["input_ids"][1, :-length] == processor.layout.pad_token_id).all()
    assert together["canvas"].shape == (2, 64)


def test_text_infilling_pins_what_is_known(processor):
    inputs = processor.for_text_infill(["a photo", 2, "."])
    assert (inputs["canvas"][~inputs["pinned_mask"]] == MASK).all()
    assert (~inputs["pinned_mask"]).sum() == 2
    assert inputs["canvas"][0, -1] == END
    answer = processor.encoder.text(" of").ids_L[:1].tolist() * 2
    text = processor.post_process(filled(inputs, answer), inputs)[0]
    assert text == "a photo" + processor.decode(answer) + "."


def test_marked_holes_have_the_asked_length(processor):
    inputs = processor.for_text_infill("a <|hole|> of <|hole|>", hole_length=3)
    assert (~inputs["pinned_mask"]).sum() == 6


def test_a_pixel_mask_covers_every_code_it_touches(processor):
    mask = np.zeros((32, 32), dtype=bool)
    mask[3:5, 31] = True
    inputs = processor.for_image_infill(PICTURE, mask)
    is_hole = ~inputs["pinned_mask"][0, 1:65].reshape(8, 8)
    assert is_hole.nonzero().tolist() == [[0, 7], [1, 7]]
    same = processor.for_image_infill(PICTURE, is_hole.numpy())
    assert all(torch.equal(same[key], inputs[key]) for key in inputs)


def test_a_mask_of_the_images_size_is_padded_like_the_image(processor):
    mask = np.zeros((28, 28), dtype=bool)
    mask[0, 0] = True
    inputs = processor.for_image_infill(Image.new("L", (28, 28), 200), mask)
    is_hole = ~inputs["pinned_mask"][0, 1:65].reshape(8, 8)
    assert is_hole.nonzero().tolist() == [[0, 0]]
    everything = processor.for_image_infill(PICTURE, np.ones((32, 32), dtype=bool))
    assert (~everything["pinned_mask"]).sum() == 64


def test_a_joint_infilling_answers_with_image_and_text(processor):
    hole = np.eye(8, dtype=bool)
    inputs = processor.for_joint_infill(PICTURE, hole, "a photo of a <|hole|>.", hole_length=1)
    assert (~inputs["pinned_mask"]).sum() == 9
    start = processor.layout.ranges["image"].start
    word = processor.encoder.text(" red").ids_L[:1].tolist()
    answer = processor.post_process(filled(inputs, [start] * 8 + word), inputs)[0]
    assert answer["image"].size == (32, 32)
    assert answer["text"] == "a photo of a" + processor.decode(word) + "."
    captioned = processor.for_image_infill(PICTURE, hole, text="a")
    answer = processor.post_process(filled(captioned, [start] * 8), captioned)[0]
    assert answer["text"] == "a"


def test_a_completion_prompt_is_bos_and_the_text(processor):
    ids = processor("a photo")["input_ids"]
    assert ids[0].tolist() == [2, *processor.encoder.text("a photo").ids_L]
    assert processor("")["input_ids"].tolist() == [[2]]


@pytest.mark.parametrize("typed", ["<|mask|>", "<|end|><|assistant|>", "<|image|> <|pad|>"])
def test_mask_like_text_in_a_prompt_is_plain_text(processor, typed):
    plain = processor(typed)["input_ids"][0, 1:]
    assert plain.min() >= len(SPECIAL_TOKENS)
    assert processor.decode(plain) == typed
    inputs = processor.for_action(PICTURE, [0, 0], typed)
    assert MASK not in inputs["input_ids"]
    assert (inputs["input_ids"] == END).sum() == 1


def test_requests_of_different_lengths_make_one_batch(processor):
    hole = np.eye(8, dtype=bool)
    requests = [
        processor.for_joint_infill(PICTURE, hole, "a photo"),
        processor.for_text_infill(["a", 1]),
        processor.for_image(["draw a sneaker", "a"]),
    ]
    batch = processor.batch(requests)
    lengths = [one["canvas"].shape[1] for one in requests]
    real = (batch["canvas_modality_ids"] >= 0).sum(dim=1)
    assert real.tolist() == [lengths[0], lengths[1], 64, 64]
    assert batch["input_ids"].shape == (4, requests[2]["input_ids"].shape[1])
    start = processor.layout.ranges["image"].start
    codes = torch.full((int((~batch["pinned_mask"]).sum()),), start)
    answers = processor.post_process(filled(batch, codes), batch)
    assert answers[0]["text"] == "a photo"
    assert answers[1] == "a"
    assert answers[3].size == (32, 32)
    again = processor.batch([batch])
    assert all(torch.equal(again[key], batch[key]) for key in batch)


def test_a_batch_of_chats_has_no_canvas(processor):
    chats = [processor.for_chat(user({"type": "text", "text": one})) for one in ("a", "a photo")]
    batch = processor.batch(chats)
    assert sorted(batch) == ["attention_mask", "input_ids"]
    for row, chat in enumerate(chats):
        kept = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        assert kept.tolist() == chat["input_ids"][0].tolist()
    with pytest.raises(ValueError, match="all have"):
        processor.batch([chats[0], processor.for_image("a")])
    with pytest.raises(ValueError, match="all have"):
        processor.batch([])


# --- transformers' interface


def test_text_with_images_is_a_users_turn(processor):
    got = processor(text=["what is it?", "a"], images=[PICTURE, PICTURE])
    expected = processor.apply_chat_template(
        [
            user({"type": "image", "image": PICTURE}, {"type": "text", "text": one})
            for one in ("what is it?", "a")
        ]
    )
    assert torch.equal(got["input_ids"], expected["input_ids"])
    assert got["input_ids"].shape[0] == 2


def test_the_chat_template_gives_ids_text_lists_and_arrays(processor):
    messages = user({"type": "image", "image": PICTURE}, {"type": "text", "text": "what is it?"})
    ids = processor.apply_chat_template(messages, return_dict=False)
    assert ids.shape[0] == 1
    rendered = processor.apply_chat_template(messages, tokenize=False)
    assert rendered == "<|bos|><|user|><|image|><|/image|>what is it?<|end|><|assistant|>"
    assert processor.apply_chat_template([messages], tokenize=False) == [rendered]
    assert processor(messages=messages, return_tensors=None)["input_ids"] == ids.tolist()
    assert isinstance(processor(messages=messages, return_tensors="np")["input_ids"], np.ndarray)


def test_the_assistant_mask_marks_what_the_assistant_says(processor):
    messages = [*user({"type": "text", "text": "a"}), {"role": "assistant", "content": "photo"}]
    result = processor.apply_chat_template(
        messages, add_generation_prompt=False, return_assistant_tokens_mask=True
    )
    said = result["input_ids"][result["assistant_masks"].bool()]
    assert said.tolist() == [*processor.encoder.text("photo").ids_L, END]


def test_auto_classes_load_every_part(processor, folder):
    loaded = AutoProcessor.from_pretrained(folder)
    assert type(loaded) is unidiff.UniDiffProcessor
    assert loaded.layout == processor.layout
    assert loaded.action_bins == processor.action_bins
    assert loaded.state_bins == processor.state_bins
    assert loaded.chat_template == processor.chat_template
    assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
    for got, expected in zip(
        loaded.image_tokenizer.state_dict().values(),
        processor.image_tokenizer.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(got, expected)
    assert len(AutoTokenizer.from_pretrained(folder)) == len(processor.tokenizer)
    assert AutoImageProcessor.from_pretrained(folder).size == processor.image_processor.size


def test_a_loaded_processor_builds_the_same_inputs(processor, folder):
    loaded = UniDiffProcessor.from_pretrained(folder)
    arguments = (PICTURE, [0.1, 0.9], "push the red puck.")
    got, expected = loaded.for_action(*arguments), processor.for_action(*arguments)
    assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_custom_chat_template_is_saved(processor, tmp_path):
    template = "<|bos|>{% for part in messages[0]['content'] %}{{ part['slot'] }}{% endfor %}"
    custom = UniDiffProcessor(tokenizer=processor.tokenizer, chat_template=template)
    custom.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    ids = loaded.for_chat(user({"type": "text", "text": "a"}))["input_ids"]
    assert ids.shape == (1, 2)


def test_a_text_only_processor_names_what_it_lacks(processor):
    text_only = UniDiffProcessor(tokenizer=processor.tokenizer)
    assert set(text_only.layout.ranges) == {"text"}
    with pytest.raises(ValueError, match="image"):
        text_only.for_image("draw a sneaker")
    with pytest.raises(ValueError, match="no image tokenizer: load it with from_pretrained"):
        text_only.for_chat(user({"type": "image", "image": PICTURE}))
    with pytest.raises(ValueError, match="state_bins"):
        text_only.for_chat(user({"type": "state", "state": [0, 0]}))


def test_a_processor_can_be_pickled(processor):
    processor.for_chat(user({"type": "text", "text": "a"}))
    copied = pickle.loads(pickle.dumps(processor))
    assert torch.equal(copied("a photo")["input_ids"], processor("a photo")["input_ids"])


# --- files that are missing or damaged

FILES = (
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "image_tokenizer/config.json",
    "image_tokenizer/model.safetensors",
)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        UniDiffProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("jinja")])
def test_a_file_cut_short_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=name):
        UniDiffProcessor.from_pretrained(folder)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{% for message in messages %}{{ mess", "TemplateSyntaxError"),
        ("{{ messages | no_such_filter }}", "no_such_filter"),
    ],
)
def test_a_damaged_chat_template_is_named(folder, template, reason):
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=f"chat_template.jinja.*{reason}"):
        UniDiffProcessor.from_pretrained(folder)


def test_a_damaged_configuration_of_the_model_is_named(folder):
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match=r"config\.json is damaged or cut short"):
        UniDiffProcessor.from_pretrained(folder)


def test_a_configuration_without_layout_is_refused(folder):
    path = folder / "processor_config.json"
    values = json.loads(path.read_text())
    values.pop("token_layout")
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="token_layout"):
        UniDiffProcessor.from_pretrained(folder)


def test_saving_without_the_image_tokenizer_is_refused(processor, tmp_path):
    incomplete = UniDiffProcessor(tokenizer=processor.tokenizer, token_layout=processor.layout)
    with pytest.raises(ValueError, match="no image tokenizer"):
        incomplete.save_pretrained(tmp_path)


# --- decoding


def test_any_ids_decode_to_valid_answers(processor):
    rng = np.random.default_rng(2)
    for _ in range(5):
        ids = rng.integers(-5000, 5000, 64)
        assert processor.decode_image(ids).size == (32, 32)
        actions = processor.decode_actions(ids[:16])
        assert actions.shape == (8, 2)
        assert actions.dtype == np.float32
        assert (np.abs(actions) <= 1).all()
        assert isinstance(processor.decode_text(ids), str)
        assert isinstance(processor.decode(ids, skip_special_tokens=False), str)


def test_an_action_comes_back_within_half_a_bin(processor, chunk):
    ids = processor.layout.encode("action", processor.action_bins.encode(chunk)).reshape(-1)
    inputs = processor.for_action(PICTURE, [0, 0], "push")
    (actions,) = processor.post_process(filled(inputs, ids), inputs)
    assert np.abs(actions - chunk).max() <= 1 / 256 + 1e-6


def test_an_image_comes_back_as_its_tokenizer_reconstructs_it(processor):
    inputs = processor.for_image("draw a sneaker")
    codes = processor.image_codes(PICTURE)
    (got,) = processor.post_process(filled(inputs, processor.layout.encode("image", codes)), inputs)
    pixels = processor.image_processor(PICTURE, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = processor.image_tokenizer(pixels).reconstruction
    assert np.array_equal(got, processor.image_processor.postprocess(expected)[0])


def test_one_image_is_found_in_a_whole_sequence(processor):
    ids = processor.for_chat(user({"type": "image", "image": PICTURE}))["input_ids"][0]
    codes = processor.layout.encode("image", processor.image_codes(PICTURE))
    assert np.array_equal(processor.decode_image(ids), processor.decode_image(codes))


@pytest.mark.parametrize("count", [0, 15, 17, 64])
def test_part_of_an_action_chunk_is_refused(processor, count):
    with pytest.raises(ValueError, match="16 ids"):
        processor.decode_actions([40] * count)


def test_text_ends_with_the_turn_and_leaves_codes_out(processor):
    photo = processor.encoder.text("a photo").ids_L.tolist()
    code = processor.layout.ranges["image"].start
    assert processor.decode_text([*photo, code, MASK, END, *photo]) == "a photo"
    assert processor.decode([*photo, END, *photo]) == "a photoa photo"
    assert processor.batch_decode(torch.tensor([photo, photo])) == ["a photo"] * 2
    assert processor.decode([END], skip_special_tokens=False) == "<|end|>"


def test_a_text_answer_is_what_follows_the_prompt(processor):
    inputs = processor.for_chat([user({"type": "text", "text": one}) for one in ("a", "photo")])
    answer = torch.tensor([[*processor.encoder.text("red").ids_L, END]] * 2)

    class Output:
        sequences = torch.cat([inputs["input_ids"], answer], dim=1)

    assert processor.post_process(Output(), inputs) == ["red", "red"]


def test_a_canvas_that_did_not_come_back_whole_is_refused(processor):
    inputs = processor.for_image("a")
    with pytest.raises(ValueError, match="64 tokens"):
        processor.post_process(inputs["input_ids"], inputs)


# --- pictures


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "HSV"])
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (1, 1), (100, 37)])
def test_pictures_of_any_mode_and_size_have_64_codes(processor, mode, size):
    assert processor.image_codes(Image.new("RGB", size, "red").convert(mode)).shape == (64,)


def test_paths_arrays_and_tensors_of_one_picture_have_the_same_codes(processor, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    expected = processor.image_codes(PICTURE).tolist()
    for same in (
        Image.fromarray(PICTURE),
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
        torch.from_numpy(PICTURE),
        np.moveaxis(PICTURE, -1, 0),
        {"codes": np.array(expected).reshape(8, 8)},
    ):
        assert processor.image_codes(same).tolist() == expected


# --- bad input


@pytest.mark.parametrize("damage", ["cut short", "text", "empty", "folder", "broken chunk"])
def test_a_file_that_is_no_picture_is_named(processor, tmp_path, damage):
    path = tmp_path / "picture.png"
    Image.fromarray(PICTURE).save(path)
    whole = path.read_bytes()
    contents = {
        "cut short": whole[: len(whole) // 2],
        "text": b"words",
        "empty": b"",
        "broken chunk": whole[:40] + bytes(20) + whole[60:],
    }
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(contents[damage])
    for source in (path, str(path)):
        with pytest.raises(ValueError, match=r"picture\.png is no picture, or damaged"):
            processor.image_codes(source)


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ({"type": "image", "image": 7}, TypeError),
        ({"type": "image", "image": [[1, 2], [3, 4]]}, TypeError),
        ({"type": "image", "image": np.full((4, 4, 3), np.nan)}, ValueError),
        ({"type": "image", "image": np.zeros((5, 5, 2))}, ValueError),
        ({"type": "image", "image": "no_such_file.png"}, FileNotFoundError),
        ({"type": "image"}, ValueError),
        ({"type": "image", "codes": [1, 2, 3]}, ValueError),
        ({"type": "image", "codes": [999] * 64}, ValueError),
        ({"type": "image", "codes": [0.5] * 64}, TypeError),
        ({"type": "state", "state": [float("nan"), 0]}, ValueError),
        ({"type": "state", "state": [0, 0, 0]}, ValueError),
        ({"type": "action", "action": np.full((8, 2), np.inf)}, ValueError),
        ({"type": "action", "action": np.zeros((4, 2))}, ValueError),
        ({"type": "text"}, TypeError),
        ({"type": "text", "text": 3}, TypeError),
        ({"type": "sound", "sound": 1}, ValueError),
        ({}, ValueError),
        ("text", TypeError),
    ],
)
def test_malformed_parts_are_refused(processor, part, error):
    with pytest.raises(error):
        processor.for_chat(user(part))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda p: p(), "pass text"),
        (lambda p: p("a", messages=user({"type": "text", "text": "a"})), "pass text"),
        (lambda p: p(["a", "b"], images=PICTURE), "as many"),
        (lambda p: p("a", return_tensors="jax"), "return_tensors"),
        (lambda p: p("a", padding="max_length"), "padding"),
        (lambda p: p([]), "at least one"),
        (lambda p: p.for_chat([]), "at least one message"),
        (lambda p: p.for_chat([[]]), "at least one message"),
        (lambda p: p.build(user({"type": "text", "text": "a"}), want="sound"), "want"),
        (lambda p: p.build(user({"type": "text", "text": "a"}), want=["text", "image"]), "want"),
        (lambda p: p.build(user({"type": "text", "text": "a"}), want=[]), "want"),
        (lambda p: p.build(user({"type": "text", "text": "a"}), want=["image"] * 2), "want"),
        (lambda p: p.for_chat([{"role": "mask", "content": "a"}]), "role"),
        (lambda p: p.for_chat([{"role": "user", "content": None}]), "content must be .* got None"),
        (lambda p: p.for_chat([{"role": "user", "content": "ab\ud800"}]), "surrogate.*character 2"),
        (lambda p: p.for_completion("\udcff"), "surrogate"),
        (lambda p: p.for_text_infill("\udcff <|hole|>"), "surrogate"),
        (lambda p: p.for_text_infill("a photo"), "no hole"),
        (lambda p: p.for_text_infill(["a photo"]), "nothing to fill"),
        (lambda p: p.for_image_infill(PICTURE, np.zeros((8, 8), bool)), "nothing to fill"),
        (lambda p: p.for_joint_infill(PICTURE, None, "a"), "nothing to fill"),
        (lambda p: p.for_image_infill(PICTURE, np.ones((4, 4), bool)), "shapes"),
        (lambda p: p.for_image_infill(PICTURE, np.ones(64, bool)), "shapes"),
    ],
)
def test_malformed_requests_say_what_is_wrong(processor, call, reason):
    with pytest.raises(ValueError, match=reason):
        call(processor)


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.for_chat("hello"),
        lambda p: p.for_chat(None),
        lambda p: p.for_chat(["hello"]),
        lambda p: p.for_completion([1]),
        lambda p: p.image_codes(np.full((4, 4, 3), None)),
        lambda p: p.image_codes(np.full((4, 4), "a")),
        lambda p: p.image_codes(np.zeros((4, 4), dtype=complex)),
        lambda p: p("a", temperature=1),
        lambda p: p.apply_chat_template(user({"type": "text", "text": "a"}), tools=[]),
        lambda p: p.for_image_infill(PICTURE, np.ones((8, 8))),
        lambda p: p.decode_text([0.5]),
        lambda p: setattr(p, "image_tokenizer", torch.nn.Linear(1, 1)),
        lambda p: UniDiffProcessor(tokenizer="text"),
    ],
)
def test_values_of_the_wrong_class_are_refused(processor, call):
    with pytest.raises(TypeError):
        call(processor)


def test_parts_that_do_not_fit_the_layout_are_refused(processor):
    given = {"tokenizer": processor.tokenizer, "token_layout": processor.layout}
    with pytest.raises(ValueError, match="64 codes"):
        UniDiffProcessor(**given, state_bins=BinTokenizer((0,), (1,), 64))
    with pytest.raises(ValueError, match="grid"):
        UniDiffProcessor(**given, action_bins=BinTokenizer((0, 0), (1, 1), 256, horizon=4))
    with pytest.raises(ValueError, match="horizon None"):
        UniDiffProcessor(**given, state_bins=BinTokenizer((0,), (1,), 256, horizon=1))
    other = FSQImageTokenizer(
        FSQImageTokenizerConfig(
            levels=[4, 4],
            hidden_sizes=[8, 8],
            num_encoder_blocks=0,
            num_decoder_blocks=0,
            num_stage_blocks=0,
        )
    )
    with pytest.raises(ValueError, match="16 codes"):
        UniDiffProcessor(**given, image_model=other)
