"""Decoding sessions: who joins between steps gets what it would have got alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_decoding import CANVAS, COMMON, decode, prompts, responses, tiny_model
from torch import Tensor

from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import APPROXIMATE_CACHE_REUSES
from unidiff.generation.request import Request
from unidiff.generation.session import DecodingSession
from unidiff.model.modeling import UniDiffForBlockDiffusion

NEGATIVES = {"negative_input_ids": [torch.tensor([[7, 8, 9]]), torch.tensor([[30, 31, 32, 33]])]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "diffusion": ("causal_context", {}),
    "unfused": ("causal_context", {"fuse_commit": False, "prefill_chunk_length": 4}),
    "recomputed": ("causal_context", {"cache_reuse": "none"}),
    "sub-blocks": ("causal_context", {"sub_block_length": 4}),
    "adaptive": ("causal_context", {"block_delimiters": [*range(4, 40)]}),
    "guided": ("causal_context", {"guidance_scale": [1.5, 3.0]}),
    "refreshed": ("causal_context", {"guidance_scale": [1.5, 3.0], "guidance_refresh": 2}),
    "refreshed remdm": (
        "causal_context",
        {
            "guidance_scale": [1.5, 3.0],
            "guidance_refresh": 3,
            "guidance_interval": [0.3, 1.0],
            "unmasking_strategy": "remdm",
        },
    ),
    "remdm": ("causal_context", {"unmasking_strategy": "remdm"}),
    "ar": ("causal_context", {"decoding_mode": "ar"}),
    "self_speculative": ("causal_context", {"decoding_mode": "self_speculative"}),
    "block_causal": ("block_causal", {}),
    "full": ("full", {}),
    **{f"full {kind}": ("full", {"cache_reuse": kind}) for kind in APPROXIMATE_CACHE_REUSES},
}
SHIFTED = ("diffusion", "unfused", "guided", "block_causal", "full")
OWN: list[dict[str, Any]] = [
    {"max_new_tokens": 20, "seed": [11], "temperature": 0.8, "confidence_threshold": 0.2},
    {"max_new_tokens": 3, "seed": [12], "do_sample": False, "max_denoising_steps": 2},
    {"max_new_tokens": 13, "seed": [13], "temperature": 1.5, "eos_token_id": [17, 30]},
    {"max_new_tokens": 9, "seed": [14], "confidence_threshold": 0.05},
]
LENGTHS = [9, 14, 3, 7]


@pytest.fixture(scope="module")
def models() -> Callable[..., UniDiffForBlockDiffusion]:
    built: dict[Any, UniDiffForBlockDiffusion] = {}

    def build(pattern: str, shift: int = 0) -> UniDiffForBlockDiffusion:
        key = pattern, shift
        built[key] = built.get(key) or tiny_model(pattern, logits_shift=shift)
        return built[key]

    return build


@pytest.fixture
def model(models: Callable[..., UniDiffForBlockDiffusion]) -> UniDiffForBlockDiffusion:
    return models("causal_context")


def prompt_of(row: int) -> Tensor:
    """(1, n) prompt of one of four requests."""
    ids, mask = prompts(LENGTHS)
    return ids[row][mask[row].bool()][None]


def open_session(model: UniDiffForBlockDiffusion, **options: Any) -> DecodingSession:
    """A session with the common options."""
    return model.decoding_session(**{**COMMON, **options})


def submit(session: DecodingSession, row: int, **more: Any) -> Request:
    """Submit one of the four requests."""
    inputs = {name: more.pop(name) for name in NEGATIVES if name in more}
    return session.submit(GenerationInputs(prompt_of(row), **inputs), **{**OWN[row], **more})


def alone(model: UniDiffForBlockDiffusion, row: int, **options: Any) -> Any:
    """What the request gets by itself."""
    ids = prompt_of(row)
    return decode(model, ids, torch.ones_like(ids), **{**options, **OWN[row]})


def assert_same(output: Any, expected: Any) -> None:
    """Token for token, forward for forward."""
    assert torch.equal(output.sequences, expected.sequences)
    assert torch.equal(output.num_forwards, expected.num_forwards)
    assert output.finish_reason == expected.finish_reason
    assert torch.equal(output.row_seeds, expected.row_seeds)
    torch.testing.assert_close(output.logprobs, expected.logprobs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_a_request_that_joins_between_steps_equals_it_alone(
    name: str, shift: int, models: Callable[..., UniDiffForBlockDiffusion]
) -> None:
    pattern, options = CASES[name]
    if shift and name in (
        "ar",
        "self_speculative",
        "remdm",
        "refreshed remdm",
        "adaptive",
        "recomputed",
        "sub-blocks",
    ):
        pytest.skip("the shift is read in the same way")
    model = models(pattern, shift)
    more = NEGATIVES if "guidance_scale" in options else {}
    session = open_session(model, max_rows=3, **options)
    requests = [submit(session, 0, **more)]
    for row in (1, 2, 3):
        session.step()
        requests.append(submit(session, row, **more))
    session.run()
    for row, request in enumerate(requests):
        assert_same(request.output, alone(model, row, **options, **more))


def test_canvases_of_other_widths_join_text(model: UniDiffForBlockDiffusion) -> None:
    session = open_session(model, max_denoising_steps=3)
    text = submit(session, 0)
    session.step()
    canvas = torch.arange(10, 10 + 3 * CANVAS)[None]
    pinned = torch.arange(3 * CANVAS)[None] % 3 == 0
    filling = {"canvas": canvas, "pinned_mask": pinned}
    infill = session.submit(GenerationInputs(prompt_of(1), **filling), seed=[5])
    session.run()
    options = {"max_denoising_steps": 3}
    assert_same(text.output, alone(model, 0, **options))
    ids = prompt_of(1)
    expected = decode(model, ids, torch.ones_like(ids), seed=[5], **filling, **options)
    assert_same(infill.output, expected)
    assert torch.equal(infill.output.canvas, expected.canvas)


def test_first_come_is_first_served_and_no_forward_holds_more_rows_than_allowed(
    model: UniDiffForBlockDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = []
    forward = model.model.forward

    def counted(input_ids: Tensor, **kwargs: Any) -> Any:
        widths.append(input_ids.shape[0])
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model.model, "forward", counted)
    session = open_session(model, max_rows=2, max_denoising_steps=1)
    ids, mask = prompts([4, 6, 5])
    limits = [CANVAS, 4 * CANVAS, 2 * CANVAS]
    first = session.submit(GenerationInputs(ids, mask), max_new_tokens=limits)
    last = submit(session, 1)
    assert (session.num_running, session.num_waiting) == (0, 4)
    session.step()
    assert (session.num_running, session.num_waiting) == (1, 2)  # one of two has ended
    order = [request.number for request in session.run()]
    assert order == [last.number, first.number] or order == [first.number, last.number]
    assert max(widths) == 2
    batch = decode(
        model, ids, mask, seed=first.output.row_seeds, max_new_tokens=limits, max_denoising_steps=1
    )
    assert_same(first.output, batch)


def test_results_are_there_when_their_rows_end(model: UniDiffForBlockDiffusion) -> None:
    session = open_session(model, return_dict_in_generate=True)
    long, short = submit(session, 0), submit(session, 1)
    with pytest.raises(RuntimeError, match="request 0 has ended 0 of its 1 rows"):
        _ = long.output
    reported: list[Request] = []
    while not reported:
        reported = session.step()
    assert reported == [short]
    assert not long.is_finished
    turn = torch.cat([short.output.sequences, prompt_of(2)], dim=1)
    handle = short.output.past_key_values
    more = session.submit(GenerationInputs(turn), past=handle, seed=[3], max_new_tokens=8)
    held = handle.lengths_B.clone()
    assert set(session.run()) == {long, more}
    assert torch.equal(handle.lengths_B, held)
    scratch = decode(model, turn, torch.ones_like(turn), seed=[3], max_new_tokens=8)
    assert_same(more.output, scratch)
    assert session.run() == []


def test_a_request_with_nothing_to_do_is_reported_by_the_next_step(
    model: UniDiffForBlockDiffusion,
) -> None:
    session = open_session(model)
    empty = session.submit(GenerationInputs(prompt_of(0)), max_new_tokens=0)
    assert empty.is_finished
    assert session.is_busy
    assert session.step() == [empty]
    assert not session.is_busy
    assert session.step() == []
    assert torch.equal(empty.output.sequences, prompt_of(0))


@pytest.mark.parametrize(
    ("own", "error", "message"),
    [
        ({"input_ids": torch.tensor([[4, 999]])}, ValueError, "999"),
        ({"max_new_tokens": -1}, ValueError, "max_new_tokens must be >= 0"),
        ({"confidence_threshold": 1.5}, ValueError, r"confidence_threshold must be in \(0, 1\]"),
        ({"seed": [1, 2]}, ValueError, "seed has 2 values for 1 rows"),
        ({"top_k": 3}, ValueError, "top_k holds for a whole session"),
        ({"steps": 3}, ValueError, "is called 'max_denoising_steps' here"),
        ({"wish": 3}, ValueError, "unknown decoding option 'wish'"),
        ({"past": 5}, TypeError, "past_key_values must be"),
        ({"streamer": 5}, TypeError, "a streamer needs put"),
        ({"streamer": [None, None]}, ValueError, "2 streamers for 1 rows"),
    ],
)
def test_a_bad_request_raises_at_submit_and_touches_nobody(
    own: dict, error: type, message: str, model: UniDiffForBlockDiffusion
) -> None:
    session = open_session(model)
    good = submit(session, 0)
    session.step()
    ids = own.pop("input_ids", prompt_of(1))
    with pytest.raises(error, match=message):
        session.submit(GenerationInputs(ids), **own)
    assert session.run() == [good]
    assert_same(good.output, alone(model, 0))


@pytest.mark.parametrize("name", ["confidence_threshold", "temperature", "do_sample", "seed"])
def test_none_of_a_request_is_the_default_and_harms_nobody(
    name: str, model: UniDiffForBlockDiffusion
) -> None:
    session = open_session(model)
    odd = session.submit(GenerationInputs(prompt_of(1)), **{name: None})
    good = submit(session, 0)
    session.run()
    assert odd.output.finish_reason == ["length"]
    assert_same(good.output, alone(model, 0))


def test_a_request_with_nothing_to_do_after_the_others_have_ended(
    model: UniDiffForBlockDiffusion,
) -> None:
    session = open_session(model)
    submit(session, 0)
    session.run()
    empty = submit(session, 1, max_new_tokens=0)
    assert session.step() == [empty]
    assert not session.is_busy


def test_without_use_cache_no_handle_is_kept(model: UniDiffForBlockDiffusion) -> None:
    ids = prompt_of(0)
    options = {"max_new_tokens": 2, "return_dict_in_generate": True}
    assert model.generate(ids, **options).past_key_values is not None
    assert model.generate(ids, use_cache=False, **options).past_key_values is None


@pytest.mark.parametrize(
    ("options", "error"), [({"max_rows": 0}, ValueError), ({"max_rows": 1.5}, TypeError)]
)
def test_impossible_limits_are_refused(
    options: dict, error: type, model: UniDiffForBlockDiffusion
) -> None:
    with pytest.raises(error, match="max_rows"):
        model.decoding_session(**options)


class Recorder:
    """A streamer that remembers what it was shown, and may break at one of its calls."""

    def __init__(self, breaks_at: int | None = None, error: type[BaseException] = OSError) -> None:
        self.seen: list[int] = []
        self.drafts: list[list[int]] = []
        self.num_calls = self.num_ends = 0
        self.breaks_at, self.error = breaks_at, error

    def put(self, value: Tensor) -> None:
        self.num_calls += 1
        if self.num_calls - 1 == self.breaks_at:
            raise self.error("the listener is gone")
        self.seen += value.tolist()

    def put_draft(self, value: Tensor) -> None:
        self.drafts.append(value.tolist())

    def end(self) -> None:
        self.num_ends += 1


class Interrupting:
    """A stopping criterion that is interrupted at one of its calls."""

    def __init__(self, at: int) -> None:
        self.calls_left = at

    def __call__(self, ids: Tensor, scores: None) -> bool:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise KeyboardInterrupt
        return False


@pytest.mark.parametrize("name", ["diffusion", "ar", "self_speculative", "block_causal", "full"])
def test_an_interrupted_step_loses_no_token_and_shows_none_twice(
    name: str, models: Callable[..., UniDiffForBlockDiffusion]
) -> None:
    pattern, options = CASES[name]
    model = models(pattern)
    session = open_session(model, return_dict_in_generate=True, **options)
    streamer = Recorder()
    requests = [submit(session, 0, streamer=streamer)]
    session.step()
    requests.append(submit(session, 2, criteria=[Interrupting(at=4)]))
    with pytest.raises(KeyboardInterrupt):
        session.run()
    assert session.is_busy
    session.run()
    for row, request in zip((0, 2), requests, strict=True):
        assert_same(request.output, alone(model, row, **options))
    assert streamer.seen == requests[0].output.sequences[0].tolist()
    assert streamer.num_ends == 1


def test_a_streamer_that_raises_is_dropped_and_its_row_goes_on(
    model: UniDiffForBlockDiffusion,
) -> None:
    session = open_session(model)
    broken, whole = Recorder(breaks_at=1), Recorder()
    requests = [submit(session, 0, streamer=broken), submit(session, 2, streamer=whole)]
    with pytest.raises(OSError, match="listener is gone"):
        session.run()
    session.run()
    for row, request in zip((0, 2), requests, strict=True):
        assert_same(request.output, alone(model, row))
    assert broken.seen == prompt_of(0)[0].tolist()
    assert whole.seen == requests[1].output.sequences[0].tolist()


@pytest.mark.parametrize("mode", ["diffusion", "ar", "self_speculative"])
def test_every_row_of_a_batch_has_its_own_streamer(
    mode: str, model: UniDiffForBlockDiffusion
) -> None:
    ids, mask = prompts([5, 9])
    streamers = [Recorder(), Recorder()]
    options = {"decoding_mode": mode, "max_new_tokens": [14, 8], "seed": 3}
    output = decode(model, ids, mask, streamer=streamers, **options)
    for row, streamer in enumerate(streamers):
        bare = ids[row][mask[row].bool()].tolist()
        assert streamer.seen == bare + responses(output, 9)[row]
        assert streamer.num_ends == 1
        assert bool(streamer.drafts) == (mode != "ar")
        assert all(1 not in draft for draft in streamer.drafts)


def test_a_cancelled_request_leaves_with_what_it_has(model: UniDiffForBlockDiffusion) -> None:
    session = open_session(model, max_rows=2, max_denoising_steps=1, return_dict_in_generate=True)
    streamer = Recorder()
    kept, running, waiting = (
        submit(session, 0),
        submit(session, 3, streamer=streamer),
        submit(session, 2),
    )
    session.step()
    session.cancel(running)
    session.cancel(waiting)
    assert running.is_cancelled
    assert running.output.finish_reason == ["cancelled"]
    whole = alone(model, 3, max_denoising_steps=1)
    got = running.output.sequences[0].tolist()
    assert len(got) == LENGTHS[3] + CANVAS
    assert got == whole.sequences[0].tolist()[: len(got)]
    assert (streamer.seen, streamer.num_ends) == (got, 1)
    assert running.output.past_key_values.token_ids[0] == prompt_of(3)[0].tolist()
    assert torch.equal(waiting.output.sequences, prompt_of(2))
    assert session.run() == [kept]
    session.cancel(kept)
    assert not kept.is_cancelled
    assert_same(kept.output, alone(model, 0, max_denoising_steps=1))
    stranger = submit(open_session(model), 0)
    with pytest.raises(ValueError, match="not submitted to this session"):
        session.cancel(stranger)


@pytest.mark.parametrize("name", ["diffusion", "ar", "self_speculative", "block_causal"])
@pytest.mark.parametrize("where", ["streamer", "criterion"])
def test_interrupting_generate_leaves_model_and_handle_usable(
    name: str, where: str, models: Callable[..., UniDiffForBlockDiffusion]
) -> None:
    pattern, options = CASES[name]
    model = models(pattern)
    first = alone(model, 0, **options)
    handle = first.past_key_values
    held = [list(ids) for ids in handle.token_ids], [list(ids) for ids in handle.tail]
    keys = [handle.read(layer)[0].clone() for layer in range(handle.num_layers)]
    turn = torch.cat([first.sequences, prompt_of(1)], dim=1)
    call = {"max_new_tokens": 14, "seed": [4], "past_key_values": handle, **options}
    streamer = Recorder(breaks_at=2, error=KeyboardInterrupt)
    caught = (
        {"streamer": streamer}
        if where == "streamer"
        else {"stopping_criteria": [Interrupting(at=9)], "streamer": (streamer := Recorder())}
    )
    with pytest.raises(KeyboardInterrupt):
        decode(model, turn, torch.ones_like(turn), **call, **caught)
    assert streamer.num_ends == 1
    assert held == (handle.token_ids, handle.tail)
    for layer, before in enumerate(keys):
        assert torch.equal(handle.read(layer)[0], before)
    again = decode(model, turn, torch.ones_like(turn), **call)
    del call["past_key_values"]
    assert_same(again, decode(model, turn, torch.ones_like(turn), **call))
