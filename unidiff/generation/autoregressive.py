"""The other reading of the same weights: each context row predicts its successor."""

# Shapes: B rows in the batch, A live rows, V ids.

from collections.abc import Sequence

import torch

from unidiff.diffusion.random import uniform
from unidiff.tokens.layout import MODALITY_IDS

from .constraints import apply_processors, check_scores, guide, limit_to_modality
from .lockstep import LockStep
from .order import DRAW_TOKEN
from .sampling import choose_tokens

_TEXT = MODALITY_IDS["text"]


class Autoregressive(LockStep):
    """Rows continued left to right: each forward commits a token and reads the next one."""

    @property
    def fuses(self) -> bool:
        """Always: the forward that commits a token is the one that chooses the next."""
        return True

    def select(self, rows: Sequence[int]) -> None:
        """Nothing to do: rows have no canvas."""

    def step(self) -> None:
        """One commit of each live row's pending tokens, and the token that follows."""
        run = self.pending_run([None] * len(self.contexts))
        assert run is not None
        logits_BV = self.denoiser.commit(self.cache, run, needs_logits=True)
        assert logits_BV is not None
        if self.is_guided:
            logits_BV = guide(logits_BV, self.policy.guidance_scale)
        live = self.live
        row_A = torch.tensor(live, dtype=torch.int64, device=logits_BV.device)
        layout, vocab_size = self.denoiser.layout, self.denoiser.vocab_size
        text_A = torch.full_like(row_A, _TEXT)
        logits_AV = limit_to_modality(logits_BV[row_A], text_A, layout, vocab_size, None)
        known = [row.known_ids for row in self.rows]
        logits_AV = apply_processors(self.policy.processors, logits_AV, row_A, known)
        check_scores(logits_AV, bool(self.policy.processors))
        index_A = torch.tensor([len(known[i]) for i in live], device=row_A.device)
        token_A = choose_tokens(
            logits_AV,
            self.tensors.temperature_B[row_A],
            uniform(self.tensors.seed_B[row_A], DRAW_TOKEN, index_A, 0),
            self.policy.top_k,
            self.policy.top_p,
        )
        log_prob_A = logits_AV.log_softmax(-1).gather(-1, token_A[:, None])[:, 0]
        tokens, log_probs = token_A.tolist(), log_prob_A.tolist()
        for index, token, log_prob in zip(live, tokens, log_probs, strict=True):
            self._append(index, token, log_prob)

    def _append(self, index: int, token: int, log_prob: float) -> None:
        """Add one token to a row; end the row if it is the last."""
        row = self.rows[index]
        row.num_forwards += len(row.contexts)
        criterion_met = self.out.take(row, [token], [log_prob])
        if criterion_met or token in row.settings.end_ids:
            row.finish_reason = "stop"
        elif row.room <= 0:
            row.finish_reason = "length"
        else:
            for context in row.contexts:
                context.extend([token], [_TEXT], context.next_positions([_TEXT]))
