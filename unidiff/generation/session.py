"""Decoding that requests join and leave between steps; `generate` is the case of one request.

    session = model.decoding_session(max_rows=8, max_denoising_steps=4)
    request = session.submit(GenerationInputs(input_ids), max_new_tokens=64, seed=1)
    while session.is_busy:
        for finished in session.step():
            print(finished.number, finished.output.sequences)

Rows of all requests share forwards. What a row draws depends on its own seed, prompt and settings
alone, so a request that joins others gets what it would have got by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch

from .autoregressive import Autoregressive
from .constraints import LogitsProcessor
from .denoiser import Denoiser
from .diffusion import BlockDiffusion
from .fit import check_options, check_request, check_rows, policy_of
from .inputs import GenerationInputs, build_rows
from .lockstep import LockStep
from .option_checks import check_count, check_option
from .options import OPTIONS, PER_ROW, plain_option, reject_option
from .request import Request, finish_at_once, start_cache
from .rows import Row
from .rule_building import attach_rules
from .self_speculative import SelfSpeculative
from .soft import give_soft
from .streaming import Delivery, StoppingCriterion, Streamer, streamers_of
from .uniform_noise import uniform_loop

LOOPS: dict[str, type[LockStep]] = {
    "diffusion": BlockDiffusion,
    "ar": Autoregressive,
    "self_speculative": SelfSpeculative,
    "auto": SelfSpeculative,
}
# Options that each request may set for itself; the others hold for the whole session.
REQUEST_OPTIONS = (*PER_ROW, "do_sample", "max_length", "bos_token_id", "pad_token_id")


class DecodingSession:
    """A queue of requests and the batch of rows being decoded; for one thread at a time.

    The model's weights must not change while the session is busy.

    Attributes:
        denoiser: the model.
        options: every option's value where a request does not set its own.
        policy: what all rows share.
        max_rows: rows decoded at once; the rest wait, first come first served. None: all.
    """

    def __init__(
        self,
        denoiser: Denoiser[Any],
        options: Mapping[str, Any],
        *,
        processors: Sequence[LogitsProcessor] = (),
        criteria: Sequence[StoppingCriterion] = (),
        max_rows: int | None = None,
        tokenizer: Any = None,
    ) -> None:
        """An empty session.

        Args:
            denoiser: the model.
            options: every option of `unidiff.generation.options.OPTIONS`; see `resolve_options`.
            processors: rules on (positions, vocabulary) logits, for every request.
            criteria: conditions on the (1, n) ids of a row that end it, for every request.
            max_rows: rows decoded at once at most; None: no limit.
            tokenizer: for grammars, where a request's inputs bring none.

        Raises:
            ValueError: if options and checkpoint do not fit together.
            TypeError: if `max_rows` is no integer.
        """
        if max_rows is not None:
            check_count("max_rows", max_rows, 1)
        self.denoiser = denoiser
        self.options = dict(options)
        self.max_rows = max_rows
        self._is_exact = check_options(denoiser, options)
        self.policy = policy_of(denoiser, options, processors, self._is_exact)
        self._criteria = tuple(criteria)
        self._tokenizer = tokenizer
        self._num_requests = 0
        self._num_rows = 0
        self._places: dict[int, tuple[Request, int]] = {}  # rows that have not ended, by number
        self._loop: LockStep | None = None
        self._shown: dict[int, Row] = {}  # rows with a streamer that has not been ended
        self._finished: list[Request] = []  # since the last step's answer

    @property
    def is_busy(self) -> bool:
        """Whether a further step has something to do or to report."""
        return bool(self._places or self._finished)

    @property
    def num_running(self) -> int:
        """Rows that the next forward is shared by, as things stand."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Rows in the queue."""
        return len(self._places) - self.num_running

    def submit(
        self,
        inputs: GenerationInputs,
        *,
        criteria: Sequence[StoppingCriterion] = (),
        streamer: Streamer | Sequence[Streamer | None] | None = None,
        past: Any = None,
        **own: Any,
    ) -> Request:
        """Put a request behind those that wait; its rows join the others at the next step.

        Args:
            inputs: prompts and, if exactly one canvas is to be filled, that canvas.
            criteria: further conditions on the (1, n) ids of a row that end it.
            streamer: is shown the prompt at once, then each finished block and, if it wants them,
                drafts; a list with one (or None) for each row.
            past: cache of an earlier turn; what it shares with the prompt is not computed again.
            own: options of `REQUEST_OPTIONS` that differ from the session's.

        Raises:
            ValueError: if options, tensors and checkpoint do not fit together. Nothing has changed.
            TypeError: if something has the wrong type. Nothing has changed.
            ImportError: if a regular expression or schema is asked for without `outlines_core`.
        """
        options = self._options_of(own)
        if inputs.tokenizer is None:
            inputs = replace(inputs, tokenizer=self._tokenizer)
        has_canvas = inputs.canvas is not None or inputs.canvas_modality_ids is not None
        if has_canvas and own.get("max_new_tokens") is not None:
            raise ValueError("max_new_tokens does not apply to a canvas: leave it out")
        check_request(self.denoiser, options, inputs, past, self._is_exact)
        rows = build_rows(self.denoiser, options, inputs)
        check_rows(self.denoiser, rows, past)
        attach_rules(self.denoiser, options, inputs, rows)
        for row, one in zip(rows, streamers_of(streamer, len(rows)), strict=True):
            row.out = Delivery(one, (*self._criteria, *criteria))
        if options["pad_token_id"] is None:
            options["pad_token_id"] = self.denoiser.layout.pad_token_id
        request = Request(self._num_requests, inputs, options, rows, past)
        for row in rows:
            row.out.start(row.prompt)
        self._num_requests += 1
        for position, row in enumerate(rows):
            self._places[self._num_rows] = request, position
            if row.out.streamer is not None:
                self._shown[self._num_rows] = row
            if finish_at_once(row):
                self._end(self._num_rows, row, None)
            self._num_rows += 1
        if request.is_finished:
            self._finished.append(request)
        return request

    @torch.no_grad()
    def step(self) -> list[Request]:
        """Admit rows, one forward over all of them and what follows from it.

        An error or an interruption inside leaves the session usable: rows whose step was cut short
        begin anew at the next one, come to the same tokens and show none of them twice. A streamer
        that raises is not called again; its row goes on.

        Returns:
            Requests that have finished since the last step.
        """
        try:
            self._admit()
            if self._loop is not None and self._loop.live:
                self._loop.advance()
                self._collect(self._loop)
                self._loop.compact()
        except BaseException:
            self._loop = None
            raise
        self._show()
        finished, self._finished = self._finished, []
        return finished

    def run(self) -> list[Request]:
        """Step until every request has finished; returns those that had not been reported."""
        finished = []
        while self.is_busy:
            finished += self.step()
        return finished

    def cancel(self, request: Request) -> None:
        """End a request between steps; its output holds what its rows have by now.

        A finished request stays as it is. Other requests notice nothing.

        Raises:
            ValueError: if the request is another session's.
        """
        mine = [i for i, (owner, _) in self._places.items() if owner is request]
        if not mine and not request.is_finished:
            raise ValueError(f"request {request.number} was not submitted to this session")
        request.is_cancelled = bool(mine)
        running = self._running
        for index in mine:
            self._shown.pop(index, None)
            if index in running and self._loop is not None:
                place = running[index]
                row = self._loop.rows[place]
                self._loop.finish(place, "cancelled")
                self._end(index, row, self._cache_of(self._loop, place))
            else:
                row = request.rows[self._places[index][1]].at_start(index)
                row.finish_reason = "cancelled"
                self._end(index, row, None)
        for row in request.rows:
            row.out.end()

    @property
    def _running(self) -> dict[int, int]:
        """Place in the batch of each row that is being decoded, by its number."""
        rows = [] if self._loop is None else self._loop.rows
        return {row.index: place for place, row in enumerate(rows) if row.finish_reason is None}

    def _options_of(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The session's options under those that a request sets for itself."""
        options = dict(self.options)
        for name, value in own.items():
            if name not in options:
                reject_option(name)
            if name not in REQUEST_OPTIONS:
                raise ValueError(
                    f"{name} holds for a whole session: open another one with "
                    f"{name}={value!r}; a request may set {REQUEST_OPTIONS}"
                )
            if value is None:  # the option's own default, as in generate
                options[name] = self.options[name] if name == "bos_token_id" else OPTIONS[name]
                continue
            options[name] = plain_option(name, value)
            check_option(name, options[name])
        if own.get("max_length") is not None and own.get("max_new_tokens") is None:
            options["max_new_tokens"] = None
        return options

    def _admit(self) -> None:
        """Let as many waiting rows join the batch as there is room for."""
        running = self._running
        waiting = [index for index in self._places if index not in running]
        if self.max_rows is not None:
            waiting = waiting[: max(0, self.max_rows - len(running))]
        if not waiting:
            return
        if self._loop is None:
            self._loop = _loop_of(self.denoiser, self.options)(self.denoiser, self.policy)
        needs_reading = bool(self.denoiser.logits_shift)
        needs_reading |= self.options["decoding_mode"] != "diffusion"
        rows: list[Row] = []
        caches = []
        for request, indices in groupby(waiting, lambda index: self._places[index][0]):
            positions = {index: self._places[index][1] for index in indices}
            new = [request.rows[position].at_start(i) for i, position in positions.items()]
            past = request.past
            past = None if past is None else past.select_rows(list(positions.values()))
            caches.append(start_cache(self.denoiser, new, past, needs_reading))
            rows += new
        if num_twins := sum(len(row.twins) for row in rows):
            names = [row.settings.adapter for row in rows] * (num_twins // len(rows))
            twins = self.denoiser.new_cache(num_twins, names)
            branches = zip(*(row.twins for row in rows), strict=True)
            give_soft(twins, [twin for branch in branches for twin in branch])
            caches.append(twins)
        cache = caches[0] if len(caches) == 1 else self.denoiser.join_caches(caches)
        self._loop.admit(rows, cache)
        self._shown.update((row.index, row) for row in rows if row.index in self._shown)

    def _collect(self, loop: LockStep) -> None:
        """Take the results of rows that have ended."""
        for place, row in enumerate(loop.rows):
            if row.finish_reason is not None and row.index in self._places:
                request, _ = self._places[row.index]
                self._end(row.index, row, self._cache_of(loop, place))
                if request.is_finished:
                    self._finished.append(request)

    def _cache_of(self, loop: LockStep, place: int) -> Any:
        """Cache of one row of the batch, if somebody wants it."""
        return loop.cache.select_rows([place]) if self.policy.keeps_cache else None

    def _end(self, index: int, row: Row, cache: Any) -> None:
        """Hand a row that has ended to its request."""
        request, position = self._places[index]
        request.end_row(position, row, cache)
        del self._places[index]
        if request.is_finished and self.policy.keeps_cache:
            request.join_caches(self.denoiser)

    def _show(self) -> None:
        """Show streamers what is new; one that raises loses its place."""
        for index, row in list(self._shown.items()):
            del self._shown[index]
            row.out.show(row.generated)
            if row.finish_reason is None:
                self._shown[index] = row
            else:
                row.out.end()


def _loop_of(denoiser: Denoiser[Any], options: Mapping[str, Any]) -> type[LockStep]:
    """The loop of a mode, under uniform noise one of its own."""
    mode = options["decoding_mode"]
    is_uniform = denoiser.noise_process == "uniform" and mode == "diffusion"
    return uniform_loop(options) if is_uniform else LOOPS[mode]
