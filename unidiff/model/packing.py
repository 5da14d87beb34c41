"""Weights laid out for oneDNN once, instead of in every product: a second copy that decodes faster.

In bfloat16 the products stay the same to the last bit (tests/model/test_packing.py) and take half
the time for one token, four fifths for 32. The operators are private to torch; this is the only
file that knows them. Contract: tests/contracts/test_torch_operators.py.
"""

# Shapes: B batch, Q tokens, D width.

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .adapters import only_linear
from .experts import UniDiffMixture
from .fingerprint import weights_key

if TYPE_CHECKING:
    from .modeling import UniDiffForBlockDiffusion

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class PackedLinear:
    """Linear layers that read the same input, as one product.

    Where oneDNN has no layout of its own for this processor (half precision without AVX-512) the
    weights stay as they are, side by side.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        """Copy (out, in) weights, side by side, into oneDNN's own layout."""
        self.sizes = [len(weight) for weight in weights]
        joined = torch.cat([weight.detach() for weight in weights]).contiguous()
        self.weight, self.is_reordered = _reordered(joined)
        given = [bias.detach() for bias in biases if bias is not None]
        self.bias = torch.cat(given) if given else None

    def __call__(self, hidden: Tensor) -> Tensor:
        """(..., sum of sizes) outputs of (..., in) inputs."""
        if not self.is_reordered:
            return linear(hidden, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(hidden, self.weight, self.bias, "none", [], "")

    def split(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """The output of each layer."""
        return self(hidden).split(self.sizes, dim=-1)


class PackedLayer:
    """The products of one transformer layer; a mixture of experts has none that are packed."""

    def __init__(self, layer: Any) -> None:
        """Pack a `UniDiffLayer` (nn.Module's own attributes are of no type)."""
        attention, mlp = layer.self_attn, layer.mlp
        self.project = _packed([attention.q_proj, attention.k_proj, attention.v_proj])
        self.attention_out = _packed([attention.o_proj])
        if not isinstance(mlp, UniDiffMixture):
            self.mlp_in = _packed(mlp.entrances)
            self.down = _packed([mlp.down_proj])


class PackedWeights:
    """A model's products, packed; stale as soon as a weight changes.

    Attributes:
        layers: of the transformer.
        key: identity, version and samples of every weight when it was packed.
    """

    def __init__(self, model: "UniDiffForBlockDiffusion") -> None:
        """Pack the weights.

        Raises:
            ValueError: if the model is not on a CPU with oneDNN, or a projection is wrapped.
        """
        weight = model.model.norm.weight
        device, dtype = weight.device.type, weight.dtype
        if device != "cpu" or not torch.backends.mkldnn.is_available() or dtype not in _DTYPES:
            raise ValueError(
                f"prepack_weights=True needs a CPU with oneDNN and one of {_DTYPES}, the model is "
                f"{dtype} on {device!r}: leave it out"
            )
        self.key = _weights_key(model)
        self.layers = [PackedLayer(layer) for layer in model.model.layers]
        head = _plain(model.lm_head)
        self._head_weight, self._head_bias = head.weight, head.bias
        self._heads: dict[tuple[int, int], PackedLinear] = {}

    def read_head(self, hidden: Tensor, id_range: tuple[int, int] | None) -> Tensor:
        """(..., V) logits of (..., D) hidden states, or those of the ids in [start, stop)."""
        ids = id_range or (0, len(self._head_weight))
        if ids not in self._heads:
            bias = None if self._head_bias is None else self._head_bias[slice(*ids)]
            self._heads[ids] = PackedLinear([self._head_weight[slice(*ids)]], [bias])
        return self._heads[ids](hidden)


# Beside the models, not in them: copies and files of a model must not hold packed weights.
_HELD: WeakKeyDictionary[nn.Module, PackedWeights] = WeakKeyDictionary()


def packed_weights(model: "UniDiffForBlockDiffusion") -> PackedWeights:
    """The model's packed weights, made at the first call and again when a weight has changed."""
    held = _HELD.get(model)
    if held is None or held.key != _weights_key(model):
        held = _HELD[model] = PackedWeights(model)
    return held


def _reordered(weight: Tensor) -> tuple[Tensor, bool]:
    """The weight in oneDNN's own layout and True, or as it is and False where there is none."""
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight), True
    except RuntimeError:  # it says which instructions are missing
        return weight, False


def _packed(linears: Sequence[Any]) -> PackedLinear:
    """Linear layers packed together."""
    plain = [_plain(one) for one in linears]
    return PackedLinear([one.weight for one in plain], [one.bias for one in plain])


def _plain(module: nn.Module) -> nn.Linear:
    """The linear layer that a module is; raises ValueError where an adapter changes it."""
    plain = only_linear(module)
    if plain is None:
        raise ValueError(
            f"prepack_weights=True needs plain linear layers, found {type(module).__name__}: "
            "merge the adapter into the model first, or leave it out"
        )
    return plain


def _weights_key(model: "UniDiffForBlockDiffusion") -> tuple[object, ...]:
    """Address and version of every parameter, and a few numbers of it.

    Merging an adapter changes neither address nor version.
    """
    places = [(weight.data_ptr(), weight._version) for weight in model.parameters()]
    return (*places, weights_key(model))
