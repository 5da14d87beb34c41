"""The block-diffusion loss of a batch: noise from counters, one forward, one normalisation.

Text is weighted as the ELBO asks; images and actions are unweighted under a cosine schedule (DESIGN
decision 8). Every random number is a hash of the sample's key, so the loss of a sample does not
depend on the batch, the rank or the point of resumption.
"""

# Shapes: B batch, C context tokens, K canvas tokens.

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unidiff.diffusion.absorbing import mask_complementary, mask_exact_count
from unidiff.diffusion.objective import stratified_times
from unidiff.diffusion.random import uniform
from unidiff.diffusion.schedules import SCHEDULES
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.streams import TrainingStreams, check_trainable, training_streams
from unidiff.tokens.layout import MODALITIES

from .balance import balance_term, routes_to_balance

DRAW_TIME, DRAW_MASK = 101, 102
DRAW_WRONG, DRAW_OTHER = 104, 105


@dataclass(frozen=True)
class ModalityLoss:
    """How one modality is noised and weighted.

    Attributes:
        schedule: name in `unidiff.diffusion.schedules.SCHEDULES`.
        elbo_weights: weight n / k (the ELBO; asks for the linear schedule) or one. A block that is
            masked whole weighs one token each in both.
        coefficient: factor on this modality's loss.
        full_share: share of the times at which all is masked; the others follow the schedule.
    """

    schedule: str = "linear"
    elbo_weights: bool = True
    coefficient: float = 1.0
    full_share: float = 0.0

    def __post_init__(self) -> None:
        """Check the schedule's name, the share, and that ELBO weights go with linear times."""
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {sorted(SCHEDULES)}, got {self.schedule!r}")
        if not 0.0 <= self.full_share <= 1.0:
            raise ValueError(f"full_share must be in [0, 1], got {self.full_share}")
        if self.elbo_weights and self.schedule != "linear":
            raise ValueError("elbo_weights with exact counts need schedule='linear'")

    def mask_rate(self, time: Tensor) -> Tensor:
        """Share of the tokens that are masked at times in (0, 1); any shape."""
        rest = (time - self.full_share).clamp(min=0.0) / max(1.0 - self.full_share, 1e-9)
        rate = 1.0 - SCHEDULES[self.schedule].alpha(rest)
        return torch.where(time < self.full_share, 1.0, rate)


_UNWEIGHTED = ModalityLoss("cosine", elbo_weights=False)


@dataclass(frozen=True)
class BlockObjective:
    """NELBO on canvas rows + `ar_weight` times cross-entropy of each context row's successor.

    Attributes:
        text: loss of text tokens.
        image: loss of image codes.
        action: loss of action tokens.
        state: loss of state tokens.
        further: loss of the tokens of every further modality of the layout.
        ar_weight: factor on the autoregressive reading of responses.
        ar_modalities: which of their tokens that reading covers. Others than text are covered in
            rows that keep them in the context (`BlockOptions.left_to_right`).
        wrong_share: share of the visible canvas tokens that show another id of their modality. All
            visible ones are then learnt too, so that the weights may be declared
            `trained_on_visible` (secondary remasking); 0: visible tokens are shown as they are.
        visible_weight: loss of such a visible token.
        complementary: each block is noised twice over the one context, the second time where the
            first was not, so that every token is learnt once; ELBO weights average the two.
        seed: key of the rotations that stratify the times.
    """

    text: ModalityLoss = ModalityLoss()
    image: ModalityLoss = _UNWEIGHTED
    action: ModalityLoss = _UNWEIGHTED
    state: ModalityLoss = _UNWEIGHTED
    further: ModalityLoss = _UNWEIGHTED
    ar_weight: float = 0.5
    ar_modalities: tuple[str, ...] = ("text",)
    wrong_share: float = 0.0
    visible_weight: float = 0.1
    complementary: bool = False
    seed: int = 0

    def streams(self, batch: Mapping[str, Tensor], config: UniDiffConfig) -> TrainingStreams:
        """Both streams of a batch, each block standing there as often as it is noised."""
        copies = 2 if self.complementary else 1
        return training_streams(batch, config.grid, config.logits_shift, copies)

    def loss_of(self, index: int) -> ModalityLoss:
        """How the modality of an index is noised and weighted."""
        loss: ModalityLoss = getattr(self, (*MODALITIES, "further")[min(index, len(MODALITIES))])
        return loss

    def corrupt(self, streams: TrainingStreams) -> tuple[Tensor, Tensor]:
        """((B, K) bool masked positions, (B, K) float32 loss weights); K may be 0."""
        if not streams.can_mask_BK.shape[1]:
            return streams.can_mask_BK, streams.can_mask_BK.float()
        rotation = uniform(self.seed, DRAW_TIME, streams.canvas_values("block_ids").clamp(min=0), 0)
        time_BK = stratified_times(streams.canvas_values("stream_positions"), rotation)
        modality_BK = streams.canvas_values("modality_ids")
        rate_BK, is_elbo_BK = torch.ones_like(time_BK), torch.zeros_like(modality_BK).bool()
        scale_BK = torch.ones_like(time_BK)
        for index in modality_BK.unique().tolist():
            loss = self.loss_of(index)
            here = modality_BK == index
            rate_BK[here] = loss.mask_rate(time_BK[here])
            scale_BK[here] = loss.coefficient
            is_elbo_BK |= here & loss.elbo_weights
        draw_BK = uniform(
            streams.canvas_values("sample_keys"),
            DRAW_MASK,
            streams.canvas_values("token_index"),
            streams.canvas_values("modality_ids"),
        )
        group_BK = streams.canvas_group_BK * (int(modality_BK.max()) + 1) + modality_BK
        groups = draw_BK, group_BK, rate_BK, streams.can_mask_BK
        if self.complementary:
            is_second_BK = (streams.copy_K == 1).expand_as(group_BK)
            is_masked_BK, weight_BK = mask_complementary(*groups, is_second_BK)
        else:
            is_masked_BK, weight_BK = mask_exact_count(*groups)
        weight_BK = torch.where(is_elbo_BK, weight_BK, 1.0) * scale_BK
        return is_masked_BK, torch.where(is_masked_BK, weight_BK, 0.0).float()

    def __call__(
        self,
        model: nn.Module,
        batch: Mapping[str, Tensor],
        config: UniDiffConfig,
        num_response_tokens: int | Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per response token, and its parts summed over the batch.

        Args:
            model: `UniDiffForBlockDiffusion`, possibly wrapped (DDP, peft).
            batch: as documented in `unidiff.data.collator.BlockCollator`.
            config: the model's configuration.
            num_response_tokens: labels in the global batch; None counts this batch's.

        Raises:
            ValueError: under `attention_pattern="full"` for rows with a context, or an
                `ar_weight`; under `logits_shift=1` for a label that no token precedes; if
                `ar_modalities` names one that the layout does not have.
        """
        check_trainable(config, batch, allows_shift=True)
        if config.attention_pattern == "full" and self.ar_weight:
            raise ValueError(
                f"ar_weight must be 0 under attention_pattern='full', got {self.ar_weight}: every "
                "row sees its successor"
            )
        streams = self.streams(batch, config)
        is_masked_BK, weight_BK = self.corrupt(streams)
        if self.wrong_share > 0:
            shown_BK = self._shown(streams, is_masked_BK, config)
            inputs = streams.inputs(streams.can_mask_BK, shown_BK)
            is_seen_BK = streams.can_mask_BK & ~is_masked_BK
            weight_BK = torch.where(is_seen_BK, self.visible_weight, weight_BK)
        else:
            inputs = streams.inputs(is_masked_BK, config.mask_token_id)
        successor_BC = streams.successor_labels(
            [config.layout.modality_id(name) for name in self.ar_modalities]
        )
        width = successor_BC.shape[1]
        is_read_BC = (successor_BC != -100) & (self.ar_weight > 0)
        context_labels = inputs["labels"][:, :width]  # of first canvas tokens, or none
        context_labels.copy_(torch.where(is_read_BC, successor_BC, context_labels))
        with routes_to_balance(model, config) as routes:
            losses = model(**inputs).token_losses
        diffusion_BK = streams.canvas_losses(losses) * weight_BK
        ar = losses[:, :width][is_read_BC].sum()
        if num_response_tokens is None:
            num_response_tokens = (batch["labels"] != -100).sum()
        total = diffusion_BK.sum() + self.ar_weight * ar + balance_term(routes, streams, config)
        return total / num_response_tokens, self._parts(
            streams, diffusion_BK.detach(), ar.detach(), is_read_BC.sum(), config.layout.modalities
        )

    def _shown(
        self, streams: TrainingStreams, is_masked_BK: Tensor, config: UniDiffConfig
    ) -> Tensor:
        """(B, K) int64 ids that a canvas shows: masks, clean ids, and some wrong ones."""
        keys_BK = streams.canvas_values("sample_keys")
        index_BK = streams.canvas_values("token_index")
        modality_BK = streams.canvas_values("modality_ids")
        wrong_BK, other_BK = (
            uniform(keys_BK, draw, index_BK, modality_BK) for draw in (DRAW_WRONG, DRAW_OTHER)
        )
        is_wrong_BK = streams.can_mask_BK & ~is_masked_BK & (wrong_BK < self.wrong_share)
        shown_BK = streams.canvas_values("input_ids")
        for index in modality_BK[is_wrong_BK].unique().tolist():
            allowed_V = config.layout.allowed_ids(
                config.layout.modalities[index], config.vocab_size
            )
            ids_N = allowed_V.nonzero()[:, 0].to(shown_BK.device)
            here = is_wrong_BK & (modality_BK == index)
            rank_N = torch.searchsorted(ids_N, shown_BK[here])
            further_N = 1 + (other_BK[here] * (len(ids_N) - 1)).long()
            shown_BK[here] = ids_N[(rank_N + further_N) % len(ids_N)]
        return torch.where(is_masked_BK, config.mask_token_id, shown_BK)

    def _parts(
        self,
        streams: TrainingStreams,
        diffusion_BK: Tensor,
        ar: Tensor,
        ar_count: Tensor,
        names: tuple[str, ...],
    ) -> dict[str, Tensor]:
        """Sums and counts by modality, for the log."""
        modality_BK = streams.canvas_values("modality_ids")
        parts = {"ar_sum": ar, "ar_count": ar_count}
        for index, name in enumerate(names):
            here = (modality_BK == index) & streams.can_mask_BK
            count = (here & (streams.copy_K == 0)).sum()
            coefficient = self.loss_of(index).coefficient or 1.0
            parts[f"{name}_sum"] = diffusion_BK[here].sum() / coefficient
            parts[f"{name}_count"] = count
        return parts
