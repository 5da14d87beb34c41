"""FAST: an action chunk as rounded cosine coefficients, joined into few codes by merges of a BPE.

For `ar` mode and for tokenizers that others have trained. The number of codes varies and one wrong
code moves all that follow, so a canvas in any order is better served by bins or frequencies.
"""

# Shapes: B chunks, T timesteps, D dimensions, N codes.

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer, decoders, models, trainers

from .action_tokenizer import ActionTokenizer, check_count, fitted_range
from .dct import checked_chunks, dct_matrix

_MOST_CHARACTERS = 0xD800  # what follows are surrogates, which no text may hold


@dataclass(frozen=True)
class FastTokenizer(ActionTokenizer):
    """Coefficients c of the chunk normalised to [-1, 1], as rint(c * scale), written as a text.

    Coefficient by coefficient, all dimensions of frequency 0 first, the integer i becomes the
    character i - min_token, and a byte-pair encoding turns that text into codes: the published
    scheme, whose files can be read (`bpe`, `scale` and `min_token` of a checkpoint; range -1 to 1
    where the data are normalised already). Unlike there, whatever is decoded gives a chunk: codes
    out of range are dropped, coefficients out of range are zero, too many are cut off, and
    missing ones, which are the highest frequencies, are zero.

    Error of a dimension, in normalised units, for a chunk inside the range: each coefficient is
    off by half an integer at most, and the transform M is orthonormal, so
        sum over t of e_t^2 <= T / (2 scale)^2, and |e_t| <= sum over k of |M_kt| / (2 scale).
    It holds for tokenizers of `fit`, which can write every coefficient that a chunk can have;
    foreign ones write the nearest that they can. A `length` that cuts codes off adds to it.

    Attributes:
        low: lower end of each dimension's range, in the units of the values.
        high: upper end; equal to `low` for a constant dimension.
        bpe: the merges: content of a `tokenizer.json` of the library `tokenizers`.
        horizon: timesteps of one chunk.
        scale: coefficients are multiples of 1 / scale.
        min_token: integer that character 0 stands for, <= 0.
        length: codes of every chunk, where a canvas needs a fixed number: shorter ones are filled
            with the padding code, longer ones cut off. None for as many as there are.
        is_gripper: see `ActionTokenizer`, as the following.
        is_delta: whether values are changes of the state.
        statistics: what the range was fitted to.

    Source: FAST (arXiv 2501.09747, section V); the repair of broken codes and the bound are our
        own; checked in tests/tokens/test_fast.py.
    """

    kind: ClassVar[str] = "fast"

    low: tuple[float, ...]
    high: tuple[float, ...]
    bpe: str
    horizon: int | None = None
    scale: float = 10.0
    min_token: int = -354
    length: int | None = None
    is_gripper: tuple[bool, ...] = ()
    is_delta: bool = False
    statistics: str = "q01_q99"

    def __post_init__(self) -> None:
        """Reject what cannot write a chunk."""
        self._check_range()
        if self.horizon is None:
            raise ValueError("horizon must be given: a single vector has no frequencies")
        if self.length is not None:
            check_count("length", self.length, 1)
        last = largest_integer(self.horizon, self.scale) - self.min_token
        if self.min_token > 0 or last >= _MOST_CHARACTERS:
            raise ValueError(
                f"min_token must be <= 0 and leave {last} < {_MOST_CHARACTERS} characters, got "
                f"{self.min_token} with scale {self.scale}"
            )
        try:
            object.__setattr__(self, "bpe", json.dumps(json.loads(self.bpe), sort_keys=True))
            Tokenizer.from_str(self.bpe)
        except Exception as error:  # `tokenizers` raises nothing narrower
            raise ValueError(f"bpe holds no tokenizer.json ({error})") from error
        _ = self.written

    @property
    def padding_code(self) -> int:
        """Code behind the last one of a chunk; it stands for no coefficient."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def num_codes(self) -> int:
        """Codes lie in [0, num_codes); the last is `padding_code`."""
        return self.padding_code + 1

    @property
    def grid(self) -> tuple[int, int]:
        """(length, 1); raises ValueError if the length is not fixed."""
        if self.length is None:
            raise ValueError(
                "this FAST tokenizer gives as many codes as a chunk needs: set its `length` to use "
                "it in a canvas"
            )
        return self.length, 1

    @cached_property
    def written(self) -> NDArray[np.int64]:
        """(2 m + 1,) what is written for each integer -m to m; no chunk has a larger one than m.

        The integer itself if the merges know its character, else the nearest that they know.
        """
        most = largest_integer(self.shape[0], self.scale)
        possible = range(max(self.min_token, -most), most + 1)
        known = np.array([i for i in possible if self._is_known(i)], dtype=np.int64)
        if 0 not in known:
            raise ValueError(f"bpe cannot write zero, character {-self.min_token}: wrong min_token")
        distance = np.abs(np.arange(-most, most + 1)[:, None] - known)
        return np.asarray(known[distance.argmin(axis=1)], dtype=np.int64)

    @classmethod
    def fit(
        cls,
        chunks: ArrayLike,
        scale: float = 10.0,
        vocab_size: int = 1024,
        length: int | None = None,
        statistics: str = "q01_q99",
        is_gripper: Sequence[bool] = (),
        is_delta: bool = False,
    ) -> "FastTokenizer":
        """Range and merges of a data set; the same chunks give the same tokenizer.

        The characters are all integers that a chunk can have, seen or not, so that no chunk is
        clipped later; publications take those seen.

        Args:
            chunks: (N, T, D) finite numbers.
            scale: coefficients become multiples of 1 / scale.
            vocab_size: codes at most, the padding code not counted; fewer are made where the
                chunks run out of pairs to merge.
            length: see the class.
            statistics: see `fitted_range`.
            is_gripper: D booleans, dimensions that keep the range -1 to 1; or none.
            is_delta: whether values are changes of the state.

        Raises:
            ValueError: if there are no chunks, a value is not finite, or the vocabulary cannot
                hold the characters.
        """
        horizon = checked_chunks(chunks).shape[1]
        low, high = fitted_range(chunks, statistics, is_gripper)
        most = largest_integer(horizon, scale)
        alphabet = 2 * most + 1
        if not alphabet <= vocab_size or alphabet > _MOST_CHARACTERS:
            raise ValueError(
                f"{horizon} timesteps at scale {scale} have {alphabet} integers, which must fit in "
                f"vocab_size {vocab_size}: enlarge it or lower the scale"
            )
        bare = cls(
            low,
            high,
            _merges((), alphabet, alphabet),
            horizon,
            scale,
            min_token=-most,
            length=length,
            is_gripper=tuple(is_gripper),
            is_delta=is_delta,
            statistics=statistics,
        )
        texts = bare._texts(np.asarray(chunks, dtype=np.float64))
        return replace(bare, bpe=_merges(texts, alphabet, vocab_size))

    def encode(self, values: ArrayLike) -> NDArray[np.int64]:
        """Codes of chunks; what lies outside the range is clipped first.

        Args:
            values: (..., T, D).

        Returns:
            (..., N) int64, each in [0, num_codes). N is `length`; without one, what the longest of
            the chunks needs. Shorter ones end with the padding code.

        Raises:
            ValueError: if the shape is wrong or a value is not finite.
        """
        array = np.asarray(values, dtype=np.float64)
        found = self._tokenizer.encode_batch(self._texts(array), add_special_tokens=False)
        rows = [one.ids[: self.length] for one in found]
        longest = self.length or max(map(len, rows), default=0)
        padded = [row + [self.padding_code] * (longest - len(row)) for row in rows]
        return np.array(padded, dtype=np.int64).reshape(*array.shape[:-2], longest)

    def decode(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Chunks of any codes, repaired as the class says; always finite and in the range.

        Args:
            codes: (..., N) integers, any number of them; none at all give the middle of the range.

        Returns:
            (..., T, D) float32.

        Raises:
            TypeError: if the codes are not integers.
        """
        array = np.atleast_1d(np.asarray(codes))
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"codes must be integers, got {array.dtype}")
        rows = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
        kept = [row[(row >= 0) & (row < self.padding_code)].tolist() for row in rows]
        count, zero = math.prod(self.shape), chr(-self.min_token)
        texts = self._tokenizer.decode_batch(kept, skip_special_tokens=False)
        whole = "".join(text[:count].ljust(count, zero) for text in texts)
        characters = np.frombuffer(whole.encode("utf-32-le"), dtype="<u4").astype(np.int64)
        integers = (characters + self.min_token).reshape(len(rows), *self.shape)
        integers = np.where(np.abs(integers) <= len(self.written) // 2, integers, 0)
        normalised = dct_matrix(self.shape[0]).T @ (integers / self.scale)
        return self._at_normalised(normalised).reshape(*array.shape[:-1], *self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON, with the merges in it."""
        return {**super().to_dict(), "bpe": json.loads(self.bpe)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Tokenizer from `to_dict`'s dictionary; raises ValueError as `ActionTokenizer`'s."""
        merges = {"bpe": json.dumps(values["bpe"])} if "bpe" in values else {}
        return super().from_dict({**values, **merges})

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """The merges, loaded."""
        return Tokenizer.from_str(self.bpe)

    def _is_known(self, integer: int) -> bool:
        """Whether the character of a coefficient comes back."""
        character = chr(integer - self.min_token)
        ids = self._tokenizer.encode(character, add_special_tokens=False).ids
        return bool(self._tokenizer.decode(ids, skip_special_tokens=False) == character)

    def _texts(self, values: NDArray[np.float64]) -> list[str]:
        """The text of each of (..., T, D) chunks."""
        coefficients = dct_matrix(self.shape[0]) @ self._normalised(values)
        most = len(self.written) // 2
        integers = np.clip(np.rint(coefficients * self.scale), -most, most).astype(np.int64)
        characters = self.written[integers + most] - self.min_token
        characters = characters.reshape(-1, math.prod(self.shape))
        return ["".join(map(chr, row)) for row in characters.tolist()]


def largest_integer(horizon: int, scale: float) -> int:
    """Largest rounded coefficient of a chunk in [-1, 1]: none exceeds sqrt(T) (Cauchy-Schwarz).

    Raises:
        ValueError: if the scale is not positive and finite.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be > 0 and finite, got {scale}")
    return math.floor(scale * math.sqrt(horizon) + 0.5)


def _merges(texts: Sequence[str], alphabet: int, vocab_size: int) -> str:
    """`tokenizer.json` of a byte-pair encoding over the first `alphabet` characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=[chr(i) for i in range(alphabet)],
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges: str = tokenizer.to_str()
    return merges
