"""What our decoder is measured against: transformers' own models, and a loop without a cache."""

# Shapes: B rows, L prompt, K block, V ids.

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
    Gemma4VisionConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from unidiff.model.modeling import UniDiffForBlockDiffusion

from .decode_setup import MASK_ID, DecodeSetup

# Stops a canvas when the mean entropy is below it, in nats: never.
NEVER_CONFIDENT = 1e-30


def qwen3_twin(model: UniDiffForBlockDiffusion, is_causal: bool = True) -> Qwen3ForCausalLM:
    """Transformers' Qwen3 with a copy of our model's weights, its default attention and cache.

    Args:
        model: ours; its parameters carry Qwen3's names.
        is_causal: False lets every token attend to all, as LLaDA's weights do.
    """
    ours = model.config
    config = Qwen3Config(
        vocab_size=ours.vocab_size,
        hidden_size=ours.hidden_size,
        intermediate_size=ours.intermediate_size,
        num_hidden_layers=ours.num_hidden_layers,
        num_attention_heads=ours.num_attention_heads,
        num_key_value_heads=ours.num_key_value_heads,
        head_dim=ours.head_dim,
        max_position_embeddings=ours.max_position_embeddings,
        rms_norm_eps=ours.rms_norm_eps,
        rope_parameters=ours.rope_parameters,
        tie_word_embeddings=ours.tie_word_embeddings,
        pad_token_id=ours.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    twin = Qwen3ForCausalLM(config).to(model.dtype).eval()
    twin.load_state_dict(model.state_dict())
    for layer in twin.model.layers:
        layer.self_attn.is_causal = is_causal
    return twin


def equal_gemma(setup: DecodeSetup) -> DiffusionGemmaForBlockDiffusion:
    """Transformers' DiffusionGemma with as many active parameters, random weights, no experts.

    Its feed-forward width is chosen for that; its layers follow its default pattern, with a window
    longer than the text. The experts, which it computes beside a dense layer, are off: their time
    is not counted against it.
    """
    shape = setup.shape
    # The width enters linearly: two sizes give the line.
    sizes = [active_parameters(_gemma(setup, width)) for width in (8, 16)]
    per_unit = (sizes[1] - sizes[0]) / 8
    target = _parameters_of_ours(setup)
    width = max(8, round(8 + (target - sizes[0]) / per_unit))
    unit = 32 if shape.hidden_size >= 256 else 1  # odd widths are slow
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        model = _gemma(setup, max(unit, round(width / unit) * unit), device=None)
    for stack in (model.model.encoder.language_model.layers, model.model.decoder.layers):
        for layer in stack:
            layer.router, layer.experts = _NoRouter(), _NoExperts()
    return model.to(setup.torch_dtype).eval()


def active_parameters(model: DiffusionGemmaForBlockDiffusion) -> int:
    """Parameters that a canvas token passes through: encoder and decoder share theirs."""
    named = model.model.decoder.named_parameters()
    return sum(p.numel() for name, p in named if "experts" not in name and "router" not in name)


def _parameters_of_ours(setup: DecodeSetup) -> int:
    """Parameters of our model, the tied head once."""
    with torch.device("meta"):
        model = UniDiffForBlockDiffusion(setup.shape.config())
    return sum(parameter.numel() for parameter in model.parameters())


def _gemma(
    setup: DecodeSetup, width: int, device: str | None = "meta"
) -> DiffusionGemmaForBlockDiffusion:
    """DiffusionGemma of a feed-forward width; on "meta" without memory."""
    shape = setup.shape
    text = DiffusionGemmaTextConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        global_head_dim=shape.head_dim,
        max_position_embeddings=setup.longest,
        sliding_window=setup.longest,
        layer_types=_layer_types(shape.num_layers),
        num_experts=1,
        top_k_experts=1,
        moe_intermediate_size=8,
        eos_token_id=None,
    )
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 16}
    vision = Gemma4VisionConfig(**small, num_attention_heads=1, num_key_value_heads=1)
    config = DiffusionGemmaConfig(
        text_config=text, vision_config=vision, canvas_length=setup.block_length
    )
    with torch.device(device or "cpu"):
        return DiffusionGemmaForBlockDiffusion(config)


def _layer_types(num_layers: int) -> list[str]:
    """DiffusionGemma's default pattern: every sixth layer and the last one are full."""
    is_full = [(index + 1) % 6 == 0 or index + 1 == num_layers for index in range(num_layers)]
    return ["full_attention" if full else "sliding_attention" for full in is_full]


class _NoRouter(nn.Module):
    """In the router's place: chooses nothing."""

    def forward(self, hidden: Tensor) -> tuple[None, None, None]:
        """Nothing."""
        return None, None, None


class _NoExperts(nn.Module):
    """In the experts' place: adds nothing."""

    def forward(self, hidden: Tensor, *chosen: Any) -> Tensor:
        """Zeros."""
        return torch.zeros_like(hidden)


@torch.no_grad()
def denoise_without_cache(
    model: nn.Module, prompt_BL: Tensor, new_tokens: int, block_length: int, steps: int
) -> Tensor:
    """(B, L + new) ids decoded as LLaDA's published loop does: every step is a whole forward.

    Each forward covers the prompt and every mask, in both directions, with logits and softmax at
    all places. A block's likeliest tokens are revealed, as many in each step.

    Args:
        model: returns `.logits` (B, T, V) of (B, T) ids under bidirectional attention.
        prompt_BL: (B, L) int64.
        new_tokens: masks behind the prompt.
        block_length: places revealed before the next ones.
        steps: forwards per block.

    Source: algorithm of LLaDA, arXiv 2502.09992, low-confidence remasking with blocks; equal to our
        `full` pattern without reuse in tests/evaluation/test_decode_peers.py.
    """
    batch, start = prompt_BL.shape
    ids_BT = torch.cat([prompt_BL, prompt_BL.new_full((batch, new_tokens), MASK_ID)], dim=1)
    masked_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    masked_BT[:, start:] = True
    for stop in range(start + block_length, start + new_tokens + block_length, block_length):
        stop = min(stop, start + new_tokens)
        for left in range(steps, 0, -1):
            remaining = int(masked_BT[0, :stop].sum())
            if remaining == 0:
                break
            logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
            logits_BTV[..., MASK_ID] = -torch.inf
            prob_BT, token_BT = logits_BTV.softmax(-1, dtype=torch.float32).max(-1)
            prob_BT = prob_BT.masked_fill(~masked_BT, -torch.inf)
            chosen_BK = prob_BT[:, :stop].topk(math.ceil(remaining / left), dim=1).indices
            ids_BT.scatter_(1, chosen_BK, token_BT.gather(1, chosen_BK))
            masked_BT.scatter_(1, chosen_BK, False)
    return ids_BT


def count_forwards(modules: list[nn.Module], run: Callable[[], Any]) -> int:
    """Forwards of the modules during a run."""
    count = 0

    def tick(*_: Any) -> None:
        nonlocal count
        count += 1

    hooks = [module.register_forward_pre_hook(tick) for module in modules]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return count
