"""Decoding under uniform noise: what is not decided yet shows random ids, and the mask id never is.

A model of uniform noise sees only tokens, some clean and some not; `masked` means "not decided".
Three ways to decide: reveal and keep (`UniformDiffusion`, any strategy), reveal and decide anew in
every step (`Renoising`, `revision="renoise"`), or draw every token from the reverse of the noise
process (`Ancestral`, `unmasking_strategy="ancestral"`).
"""

# Shapes: B rows, K canvas, N positions asked for, M those of all branches, V ids.

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from unidiff.diffusion.random import uniform
from unidiff.diffusion.uniform import leave_one_out_from_posterior, uniform_ids, uniform_reverse

from .confidence import entropy
from .constraints import check_scores, limit_to_modality
from .denoiser import Denoiser
from .diffusion import BlockDiffusion
from .lockstep import Policy
from .order import DRAW_TOKEN, StepView
from .predictions import Predictions
from .reuse import is_approximate
from .rows import Row
from .sampling import choose_tokens, likeliest, probabilities

DRAW_NOISE_ID = 11  # purpose of a row's random numbers
_LEAST_LOG = -700.0  # of a probability; its multiples stay finite when branches are mixed


class UniformDiffusion(BlockDiffusion):
    """Revealed tokens stay; every other position shows a fresh random id in each step."""

    @property
    def _shows_noise(self) -> Tensor:
        """(B, K) bool, positions that show a random id."""
        return self.canvases.masked_BK

    def step(self) -> None:
        """Random ids where nothing is decided, then a step like any other."""
        canvases, tensors = self.canvases, self.tensors
        place = row_N, column_N = torch.nonzero(self._shows_noise, as_tuple=True)
        number_N = uniform(
            tensors.seed_B[row_N],
            DRAW_NOISE_ID,
            canvases.row_index[row_N, column_N],
            canvases.step_B[row_N],
        )
        canvases.ids_BK[place] = self._noise_ids(number_N, canvases.modality_BK[place])
        super().step()

    def _noise_ids(self, number_N: Tensor, modality_N: Tensor) -> Tensor:
        """(N,) ids drawn evenly from those of each position's modality."""
        ids_N = torch.zeros_like(modality_N)
        for kind in modality_N.unique().tolist():
            choices_C = torch.nonzero(self._allowed(kind))[:, 0]
            here_N = modality_N == kind
            ids_N[here_N] = uniform_ids(number_N[here_N], choices_C)
        return ids_N

    def _allowed(self, kind: int) -> Tensor:
        """(V,) bool, ids of a modality."""
        layout = self.denoiser.layout
        allowed_V = layout.allowed_ids(layout.modalities[kind], self.denoiser.vocab_size)
        return allowed_V.to(self.denoiser.device)


class Renoising(UniformDiffusion):
    """Every position is decided anew in every step; what a step does not accept is noise again.

    A block is finished when its steps are used up, or when the likeliest tokens have stayed the
    same for `stability_steps` steps and their mean entropy is below `stability_entropy`; all its
    positions then take the token drawn in that step. What comes out follows no law exactly: even
    with a perfect head the most certain tokens confirm themselves.

    Source: the sampler of DiffusionGemma as transformers publishes it (accepted tokens stay for a
        step, all others are drawn anew; stable and confident stopping); its pieces are run beside
        ours in tests/generation/test_renoising.py. Ours ends with the tokens drawn last where it
        ends with the likeliest ones: the same at temperature 0.
    """

    def __init__(self, denoiser: Denoiser[Any], policy: Policy) -> None:
        """Start without rows."""
        super().__init__(denoiser, policy)
        self.accepted_BK = torch.zeros_like(self.canvases.masked_BK)
        self.likeliest_BK = torch.full_like(self.canvases.ids_BK, -1)
        self.num_same_B = torch.zeros_like(self.canvases.step_B)
        self.is_final_B = torch.zeros_like(self.canvases.is_fresh_B)

    def join(self, rows: Sequence[Row]) -> None:
        """Open the rows' first canvases, nothing in them accepted."""
        super().join(rows)
        batch, width = self.canvases.ids_BK.shape
        more, wider = batch - len(self.num_same_B), width - self.accepted_BK.shape[1]
        self.accepted_BK = pad(self.accepted_BK, (0, wider, 0, more), value=False)
        self.likeliest_BK = pad(self.likeliest_BK, (0, wider, 0, more), value=-1)
        self.num_same_B = pad(self.num_same_B, (0, more))
        self.is_final_B = pad(self.is_final_B, (0, more), value=False)

    def select(self, rows: Sequence[int]) -> None:
        """Keep the state of these rows only."""
        super().select(rows)
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.denoiser.device)
        for name in ("accepted_BK", "likeliest_BK", "num_same_B", "is_final_B"):
            setattr(self, name, getattr(self, name)[index])

    @property
    def _shows_noise(self) -> Tensor:
        """(B, K) bool, positions whose token the step before did not accept."""
        is_later_B1 = (self.canvases.step_B > 0)[:, None]
        return self.canvases.masked_BK & ~(self.accepted_BK & is_later_B1)

    def _chosen(self, found: Predictions, confidence_N: Tensor) -> Tensor:
        """(N,) bool, positions that take their token: those accepted, or all of a last step."""
        chosen_N = super()._chosen(found, confidence_N)
        self.accepted_BK = torch.zeros_like(self.accepted_BK)
        self.accepted_BK[found.row_N, found.column_N] = chosen_N
        self.is_final_B = self._ends_blocks(found)
        return chosen_N | self.is_final_B[found.row_N]

    def _view(self, found: Predictions, confidence_N: Tensor) -> StepView:
        """What the strategy sees."""
        is_kept_BK = self.canvases.is_open & ~self._shows_noise
        return replace(super()._view(found, confidence_N), num_kept_B=is_kept_BK.sum(1))

    def _reveal(self, found: Predictions) -> None:
        """Let the accepted positions take their tokens, and keep all of an unfinished block open.

        Args:
            found: predictions at all open positions.
        """
        super()._reveal(found)
        self.canvases.masked_BK |= self.accepted_BK & ~self.is_final_B[:, None]

    def _ends_blocks(self, found: Predictions) -> Tensor:
        """(B,) bool, rows whose block ends with this step."""
        canvases, is_open_BK = self.canvases, self.canvases.is_open
        likeliest_BK = torch.full_like(self.likeliest_BK, -1)
        likeliest_BK[found.row_N, found.column_N] = likeliest(found.logits_NV) + found.first_id
        is_same_B = ((likeliest_BK == self.likeliest_BK) | ~is_open_BK).all(1)
        is_same_B &= canvases.step_B > 0
        self.num_same_B = torch.where(is_same_B, self.num_same_B + 1, 0)
        self.likeliest_BK = likeliest_BK
        total_B = torch.zeros(len(self.rows), dtype=torch.float64, device=found.row_N.device)
        total_B.index_add_(0, found.row_N, entropy(found.logits_NV).to(torch.float64))
        mean_B = total_B / is_open_BK.sum(1).clamp(min=1)
        is_stable_B = self.num_same_B >= self.policy.stability_steps
        is_settled_B = is_stable_B & (mean_B < self.policy.stability_entropy)
        return is_settled_B | (canvases.step_B + 1 >= canvases.budget_B)


class Ancestral(Renoising):
    """Every token is drawn from the reverse posterior of the next, less noisy time.

    Step s of S goes from alpha = s / S to (s + 1) / S. Temperature, top-k and top-p shape the
    prediction of the clean token; the step itself is always drawn. Rules on logits (limits,
    processors) see the logarithm of the law that is drawn from.

    Source: UDLM, arXiv 2412.10193, its sampler; with `guidance_level="posterior"` its D-CFG, which
        mixes the branches' reverse posteriors. Checked with an exact denoiser in
        tests/generation/test_ancestral.py.
    """

    def _ends_blocks(self, found: Predictions) -> Tensor:
        """(B,) bool, rows at their last step."""
        del found
        return self.canvases.step_B + 1 >= self.canvases.budget_B

    def _mix(
        self,
        logits_NV: Tensor,
        row_N: Tensor,
        column_N: Tensor,
        id_range: tuple[int, int] | None,
    ) -> Tensor:
        """(N, V) logarithm of the guided law of the tokens at the next time."""
        guidance = self.policy.guidance
        if not self.policy.mixes_posteriors or guidance.num_branches == 1:
            logits_NV = super()._mix(logits_NV, row_N, column_N, id_range)
            return self._log_earlier(logits_NV, row_N, column_N, id_range)
        guided_N = torch.tensor(self.takes_part, device=row_N.device)[row_N]
        own_N = torch.arange(len(row_N), device=row_N.device)
        index_M = torch.cat([own_N, own_N[guided_N].repeat(guidance.num_branches - 1)])
        log_MV = self._log_earlier(logits_NV, row_N[index_M], column_N[index_M], id_range)
        progress_N = self.canvases.progress[row_N]
        mixed_NV = guidance.mix_where(log_MV.clamp(min=_LEAST_LOG), guided_N, progress_N)
        is_possible_NV = log_MV[: len(row_N)] > -torch.inf
        return mixed_NV.masked_fill(~is_possible_NV, -torch.inf)

    def _log_earlier(
        self,
        logits_MV: Tensor,
        row_M: Tensor,
        column_M: Tensor,
        id_range: tuple[int, int] | None,
    ) -> Tensor:
        """(M, V) float64 log of the reverse posterior, by what a branch's head predicts."""
        canvases, tensors, denoiser = self.canvases, self.tensors, self.denoiser
        first, stop = id_range or (0, denoiser.vocab_size)
        modality_M = canvases.modality_BK[row_M, column_M]
        logits_MV = limit_to_modality(
            logits_MV, modality_M, denoiser.layout, denoiser.vocab_size, id_range
        )
        law_MV = probabilities(
            logits_MV, tensors.temperature_B[row_M], self.policy.top_k, self.policy.top_p
        )
        check_scores(logits_MV, law_MV.sum(-1), processed=False)
        current_M = canvases.ids_BK[row_M, column_M] - first
        budget_M = canvases.budget_B[row_M].to(torch.float64)
        now_M = canvases.step_B[row_M] / budget_M
        next_M = ((canvases.step_B[row_M] + 1) / budget_M).clamp(max=1.0)
        support_MV = torch.zeros_like(logits_MV, dtype=torch.bool)
        for kind in modality_M.unique().tolist():
            support_MV[modality_M == kind] = self._allowed(kind)[first:stop]
        if denoiser.uniform_prediction == "posterior":
            law_MV = leave_one_out_from_posterior(law_MV, current_M, now_M, support_MV)
        return uniform_reverse(law_MV, current_M, now_M, next_M, support_MV).log()

    def _draw(self, found: Predictions) -> Tensor:
        """(N,) a token for each position, as a column of its law."""
        row_N, seed_B = found.row_N, self.tensors.seed_B
        index_N = self.canvases.row_index[row_N, found.column_N]
        return choose_tokens(
            found.logits_NV,
            torch.ones_like(row_N, dtype=torch.float64),
            uniform(seed_B[row_N], DRAW_TOKEN, index_N, self.canvases.step_B[row_N]),
        )


def uniform_loop(options: Mapping[str, Any]) -> type[BlockDiffusion]:
    """The loop that decides under uniform noise as the options say."""
    if options["unmasking_strategy"] == "ancestral":
        return Ancestral
    return Renoising if options["revision"] == "renoise" else UniformDiffusion


def check_noise(denoiser: Denoiser[Any], options: Mapping[str, Any]) -> None:
    """Raise ValueError if the options ask for what the checkpoint's noise process has not."""
    strategy, revision = options["unmasking_strategy"], options["revision"]
    mode, level = options["decoding_mode"], options["guidance_level"]
    is_ancestral = strategy == "ancestral"
    if denoiser.noise_process == "absorbing":
        for name, value in (("unmasking_strategy", strategy), ("revision", revision)):
            if value in ("ancestral", "renoise"):
                raise ValueError(
                    f"{name}={value!r} is for uniform noise, this checkpoint's is 'absorbing': use "
                    "'first_hitting' as strategy, or 'remdm' to revise"
                )
    elif strategy == "remdm" or revision in ("secondary", "resample", "edit"):
        wrong = "unmasking_strategy='remdm'" if strategy == "remdm" else f"revision={revision!r}"
        raise ValueError(
            f"{wrong} is for absorbing noise, this checkpoint's is 'uniform': use "
            "revision='renoise' or unmasking_strategy='ancestral'"
        )
    elif is_approximate(options):
        raise ValueError(
            f"cache_reuse={options['cache_reuse']!r} goes by masks, this checkpoint's noise is "
            "'uniform': use cache_reuse='none'"
        )
    elif mode in ("self_speculative", "auto"):
        raise ValueError(
            f"decoding_mode={mode!r} drafts on masks, this checkpoint's noise is 'uniform': use "
            "'diffusion' or 'ar'"
        )
    if is_ancestral and revision is not None:
        raise ValueError("unmasking_strategy='ancestral' decides all anew: leave `revision` out")
    if revision == "renoise" and mode != "diffusion":
        raise ValueError(f"a revision needs decoding_mode='diffusion', got {mode!r}")
    if level == "posterior" and not is_ancestral:
        raise ValueError(
            "guidance_level='posterior' mixes reverse posteriors, which only "
            f"unmasking_strategy='ancestral' draws from; got {strategy!r}: use 'logits'"
        )
