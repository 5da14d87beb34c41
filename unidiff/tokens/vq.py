"""Image tokenizers of others: MAGVIT-v2, LlamaGen, Janus, Chameleon, IBQ, diffusers' `VQModel`.

They are one network, the VQGAN (arXiv 2012.09841), at different sizes; `unidiff/convert/` reads
their files. A code is looked up in one of four ways:

- `nearest`: the row of the code book at the smallest distance;
- `cosine`: the same with the latent and the rows at length 1, which are decoded at length 1 too
  (ViT-VQGAN, arXiv 2110.04627);
- `product`: the row with the largest inner product (IBQ, arXiv 2412.02692);
- `signs`: a code is the number whose binary digits, the highest first, say which dimensions are
  above zero, and stands for the values 1 and -1 (lookup-free, arXiv 2310.05737).

Shapes: B images, d dimensions of a code, h and w code rows and columns.
"""

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers import initialization as init

from .image_tokenizer import ImageTokenizer
from .vq_layers import (
    Doubling,
    Halving,
    LevelEncoder,
    VQLevel,
    VQMiddle,
    codes_of_signs,
    signs_of_codes,
)

LOOKUPS = ("nearest", "cosine", "product", "signs")
_LISTS = (
    "encoder_sizes",
    "encoder_blocks",
    "encoder_attention",
    "decoder_sizes",
    "decoder_blocks",
    "decoder_attention",
)


@strict
class VQImageTokenizerConfig(PreTrainedConfig):
    """Sizes of a `VQImageTokenizer`; lists are in the order in which their layers are applied.

    The defaults are those of LlamaGen's tokenizer that halves four times.
    """

    model_type = "unidiff_vq"

    encoder_sizes: list[int] | tuple[int, ...] = (128, 128, 256, 256, 512)  # channels of a level
    encoder_blocks: list[int] | tuple[int, ...] = (2, 2, 2, 2, 2)  # residual blocks of a level
    encoder_attention: list[int] | tuple[int, ...] = (4,)  # levels with attention
    decoder_sizes: list[int] | tuple[int, ...] = (512, 256, 256, 128, 128)  # none: only encodes
    decoder_blocks: list[int] | tuple[int, ...] = (3, 3, 3, 3, 3)
    decoder_attention: list[int] | tuple[int, ...] = (0,)
    attends_middle: bool = True  # attention between the two blocks at code resolution
    latent_size: int = 256  # channels that the encoder ends with and the decoder begins with
    code_size: int = 8  # dimensions of a code
    codebook_size: int = 16384  # number of codes
    lookup: str = "cosine"  # how a code is found, one of `LOOKUPS`
    num_groups: int = 32  # of channels, normalised together
    lowest_pixel: float = -1.0  # that the network was trained on; the highest is 1
    image_size: int = 256  # pixels per side

    def __post_init__(self, **kwargs: object) -> None:
        """Store the sequences as lists, as JSON would return them."""
        for name in _LISTS:
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check the fields against each other.

        Raises:
            ValueError: if lists differ in length, a level does not exist, a width cannot be divided
                into groups, or the lookup is unknown or has another number of codes. The
                constructor reports it wrapped in huggingface_hub's
                StrictDataclassClassValidationError.
        """
        for half in ("encoder", "decoder"):
            sizes, blocks = getattr(self, f"{half}_sizes"), getattr(self, f"{half}_blocks")
            levels = getattr(self, f"{half}_attention")
            if len(sizes) != len(blocks) or not set(levels) <= set(range(len(sizes))):
                raise ValueError(f"the {half}'s levels differ: {sizes=}, {blocks=}, {levels=}")
            if any(size < 1 or size % self.num_groups for size in sizes):
                raise ValueError(
                    f"{half}_sizes must be positive multiples of num_groups={self.num_groups}; got "
                    f"{sizes}"
                )
        if not self.encoder_sizes or len(self.decoder_sizes) not in (0, len(self.encoder_sizes)):
            raise ValueError(
                "there must be as many levels in both halves, or none in the decoder; got "
                f"{len(self.encoder_sizes)} and {len(self.decoder_sizes)}"
            )
        if self.lookup not in LOOKUPS:
            raise ValueError(f"lookup must be one of {LOOKUPS}; got {self.lookup!r}")
        if self.lookup == "signs" and self.codebook_size != 1 << self.code_size:
            raise ValueError(
                f"{self.code_size} signs make {1 << self.code_size} codes; got "
                f"codebook_size={self.codebook_size}"
            )

    @property
    def downsample_factor(self) -> int:
        """Pixels per code along each side."""
        return 1 << (len(self.encoder_sizes) - 1)


class VQEncoder(LevelEncoder):
    """From (B, 3, H, W) pixels to (B, latent_size, h, w) latents."""

    def __init__(self, config: VQImageTokenizerConfig) -> None:
        super().__init__()
        sizes, groups = list(config.encoder_sizes), config.num_groups
        widths = [sizes[0], *sizes]
        self.conv_in = nn.Conv2d(3, sizes[0], 3, padding=1)
        self.levels = nn.ModuleList(
            VQLevel(widths[n], size, count, n in config.encoder_attention, groups)
            for n, (size, count) in enumerate(zip(sizes, config.encoder_blocks, strict=True))
        )
        self.halvings = nn.ModuleList(Halving(size) for size in sizes[:-1])
        self.middle = VQMiddle(sizes[-1], config.attends_middle, groups)
        self.norm_out = nn.GroupNorm(groups, sizes[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(sizes[-1], config.latent_size, 3, padding=1)


class VQDecoder(nn.Module):
    """From latents to pixels: the middle, then levels, each but the last followed by a doubling."""

    def __init__(self, config: VQImageTokenizerConfig) -> None:
        super().__init__()
        sizes, groups = list(config.decoder_sizes), config.num_groups
        widths = [sizes[0], *sizes]
        self.conv_in = nn.Conv2d(config.latent_size, sizes[0], 3, padding=1)
        self.middle = VQMiddle(sizes[0], config.attends_middle, groups)
        self.levels = nn.ModuleList(
            VQLevel(widths[n], size, count, n in config.decoder_attention, groups)
            for n, (size, count) in enumerate(zip(sizes, config.decoder_blocks, strict=True))
        )
        self.doublings = nn.ModuleList(Doubling(size) for size in sizes[:-1])
        self.norm_out = nn.GroupNorm(groups, sizes[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(sizes[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, 3, H, W) pixels in the network's own range of (B, latent_size, h, w)."""
        hidden = self.middle(self.conv_in(latent))
        for level, doubling in zip(self.levels, [*self.doublings, nn.Identity()], strict=True):
            hidden = doubling(level(hidden))
        pixels: Tensor = self.conv_out(F.silu(self.norm_out(hidden)))
        return pixels


class VQImageTokenizer(ImageTokenizer):
    """A published image tokenizer."""

    config: VQImageTokenizerConfig
    config_class = VQImageTokenizerConfig

    def __init__(self, config: VQImageTokenizerConfig) -> None:
        super().__init__(config)
        self.encoder = VQEncoder(config)
        self.to_code = nn.Conv2d(config.latent_size, config.code_size, 1)
        if config.lookup != "signs":
            self.codebook = nn.Embedding(config.codebook_size, config.code_size)
        if config.decoder_sizes:
            self.from_code = nn.Conv2d(config.code_size, config.latent_size, 1)
            self.decoder = VQDecoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Weights for a network that nobody has trained yet."""
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight)

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        return f"VQGAN, codes by {self.config.lookup}"

    def _codes(self, pixels: Tensor) -> Tensor:
        scale, shift = self._range
        latent = self.to_code(self.encoder((pixels * scale + shift).to(self.dtype)))
        return self.find(latent.float())

    def _pixels(self, codes: Tensor) -> Tensor:
        if not self.config.decoder_sizes:
            raise ValueError(
                "this image tokenizer was published without a decoder: it makes codes and no images"
            )
        scale, shift = self._range
        pixels: Tensor = self.decoder(self.from_code(self.values(codes).to(self.dtype)))
        return (pixels.float() - shift) / scale

    @property
    def _range(self) -> tuple[float, float]:
        """(scale, shift) from [-1, 1] to the network's own range of pixels."""
        lowest = self.config.lowest_pixel
        return (1 - lowest) / 2, (1 + lowest) / 2

    def find(self, latent: Tensor) -> Tensor:
        """(B, h, w) int64 codes of a (B, d, h, w) float32 latent."""
        if self.config.lookup == "signs":
            return codes_of_signs(latent, self._digits)
        book = self._book
        squares = book.square().sum(-1) if self.config.lookup != "product" else 0.0
        codes = torch.zeros_like(latent[:, 0], dtype=torch.int64)
        # One image at a time: its scores are as many as positions times codes.
        for number, image in enumerate(latent.permute(0, 2, 3, 1)):
            codes[number] = (2 * self._placed(image) @ book.T - squares).argmax(-1)
        return codes

    def values(self, codes: Tensor) -> Tensor:
        """(B, d, h, w) float32 of (B, h, w) codes, which must be in range."""
        if self.config.lookup == "signs":
            return signs_of_codes(codes, self._digits).float()
        return self._book[codes].permute(0, 3, 1, 2)

    @property
    def _digits(self) -> Tensor:
        """(d,) the place of each dimension's binary digit, the highest first."""
        return torch.arange(self.config.code_size - 1, -1, -1, device=self.device)

    @property
    def _book(self) -> Tensor:
        """(codebook_size, d) float32, what each code stands for."""
        return self._placed(self.codebook.weight.float())

    def _placed(self, vectors: Tensor) -> Tensor:
        """(..., d) vectors, at length 1 where angles are compared."""
        return F.normalize(vectors, dim=-1) if self.config.lookup == "cosine" else vectors


AutoConfig.register(VQImageTokenizerConfig.model_type, VQImageTokenizerConfig)
AutoModel.register(VQImageTokenizerConfig, VQImageTokenizer)
