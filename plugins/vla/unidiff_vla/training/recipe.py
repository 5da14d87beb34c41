"""Sizes and rates of a policy's training."""

from dataclasses import dataclass

OBJECTIVES = ("masked", "parallel", "ar", "regression")


@dataclass(frozen=True)
class PolicyRecipe:
    """Sizes and rates; the defaults are those of the six Meta-World tasks.

    Attributes:
        objective: `masked`, or a baseline of the same backbone on the same data: `parallel` masks
            every chunk whole, which is what one-step decoding asks; `ar` predicts its tokens left
            to right; `regression` reads its actions as numbers, by the squared error.
        horizon: timesteps of a chunk.
        num_action_bins: bins of each dimension of an action.
        num_state_bins: bins of each dimension of a state.
        levels: FSQ levels of the image tokenizer.
        tokenizer_widths: its channels after each halving of the picture.
        tokenizer_steps: its optimiser steps.
        tokenizer_batch: its pictures of each step.
        steps: optimiser steps of the policy.
        warmup_steps: first steps, over which the rate rises.
        decay_steps: last steps, over which it falls.
        learning_rate: peak rate of Muon and AdamW.
        batch_size: chunks of a step.
        micro_batch: chunks of a forward; it divides the batch.
        average_decay: decay of the weight average that is kept.
        full_share: share of the chunks that are masked whole under `masked`.
        wrong_share: share of a chunk's visible tokens that are shown wrong and learnt to be told
            apart under `masked` (secondary remasking).
        still_share: share of the chunks whose instruction is another task's, and whose actions are
            none: told what the scene does not hold, the robot keeps still.
        future_share: share of the chunks that are learnt together with the picture that the first
            camera sees after them, on one canvas under `masked` (world model).
        waypoints: steps ahead of a frame whose states are learnt beside its chunk, from the prompt
            alone; beyond an episode's end its last one. They teach where things are: far from the
            goal an action says no more than a direction.
        num_turns: of the next turns of the expert (to the puck, then down on it, then to the goal)
            whose states are learnt in the same way; after the last one the episode's end.
        waypoint_weight: of a token of these states, where one of an action has 1.
        approach_share: share of the rows drawn among the frames with two turns or more to come:
            there something must be found, and few frames of an episode ask for it.
        hidden_size: width.
        num_layers: depth.
        intermediate_size: width inside the MLP.
        save_steps: steps between checkpoints.
        seed: decides weights, data order and noise.
        bf16: autocast to bfloat16 where the processor knows it.
        compile_layers: compile each layer, faster after a minute.
    """

    objective: str = "masked"
    horizon: int = 8
    num_action_bins: int = 64
    num_state_bins: int = 256
    levels: tuple[int, ...] = (8, 6, 5)
    tokenizer_widths: tuple[int, ...] = (24, 48, 96)
    tokenizer_steps: int = 3000
    tokenizer_batch: int = 32
    steps: int = 3000
    warmup_steps: int = 100
    decay_steps: int = 800
    learning_rate: float = 2e-3
    batch_size: int = 64
    micro_batch: int = 32
    average_decay: float = 0.99
    full_share: float = 0.6
    wrong_share: float = 0.1
    still_share: float = 0.1
    future_share: float = 0.0
    waypoints: tuple[int, ...] = (8, 500)
    num_turns: int = 3
    waypoint_weight: float = 1.0
    approach_share: float = 0.5
    hidden_size: int = 128
    num_layers: int = 4
    intermediate_size: int = 384
    save_steps: int = 100
    seed: int = 0
    bf16: bool = True
    compile_layers: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {OBJECTIVES}, got {self.objective!r}")
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"warmup_steps + decay_steps must be <= steps, got {self.warmup_steps} + "
                f"{self.decay_steps} > {self.steps}"
            )
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"micro_batch must divide batch_size, got {self.micro_batch} and {self.batch_size}"
            )
        if not 0 <= self.still_share < 1 or not 0 <= self.wrong_share < 1:
            raise ValueError(
                f"still_share and wrong_share must be in [0, 1), got {self.still_share} and "
                f"{self.wrong_share}"
            )
        if not all(isinstance(one, int) and one >= 1 for one in self.waypoints):
            raise ValueError(f"waypoints must be whole numbers >= 1, got {self.waypoints}")
        if self.num_turns < 0 or self.waypoint_weight < 0 or not 0 <= self.approach_share <= 1:
            raise ValueError(
                "num_turns and waypoint_weight must be >= 0 and approach_share in [0, 1], got "
                f"{self.num_turns}, {self.waypoint_weight} and {self.approach_share}"
            )
        if not 0 <= self.future_share <= 1 or (self.future_share and self.objective != "masked"):
            raise ValueError(
                f"future_share must be in [0, 1], and 0 unless objective is 'masked'; got "
                f"{self.future_share} with {self.objective!r}"
            )
