"""What kind of error a matrix gets: noise of a distribution, or what a codec really does.

A new source is a subclass and a line in SOURCES.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec import Codec, codec_named, decode, encode
from offsim.errors import InputError

Place = tuple[int, int, int]
"""Layer, expert and matrix (0 gate, 1 up, 2 down)."""


class Source(ABC):
    """Makes the wrong weights of one matrix.

    Attributes:
        takes_bound: whether the error has a size that can be asked for.
        seeded: whether another seed gives another error.
    """

    takes_bound: bool = True
    seeded: ClassVar[bool] = True

    @abstractmethod
    def changed(self, weights: torch.Tensor, size: float, seed: int, place: Place) -> torch.Tensor:
        """The weights with their error, in memory of their own.

        Args:
            weights: [rows, columns], of the dtype that the model computes with.
            size: of the error, > 0, in the unit of the weights; 0 where no bound is taken.
            seed: of the noise, >= 0.
            place: of the matrix; the same place and seed have the same noise in every scope.

        Returns:
            [rows, columns] of the same dtype.
        """


class DrawnNoise(Source):
    """Noise that does not depend on the weights, a stream of its own for every seed and place.

    It is drawn at unit size and scaled, so that two sizes differ in nothing else: what is compared
    over bounds or scopes is paired. The sum is taken in float32 and rounded to the dtype that the
    model computes with and no further. On a model computed in float32, such as the embedded one,
    it is thus not rounded to bf16 as the output of a codec is: the error is that of the stated
    distribution even where it is far below a unit in the last place of bf16, which rounding would
    swallow for large weights.
    """

    def changed(self, weights: torch.Tensor, size: float, seed: int, place: Place) -> torch.Tensor:
        drawn = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *place))))
        noise = torch.from_numpy(self.unit(drawn, weights.numel())).view(weights.shape)
        return noise.mul_(size).add_(weights.float().cpu()).to(weights)

    @abstractmethod
    def unit(self, drawn: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        """Noise [count] float32 of size 1."""


class Uniform(DrawnNoise):
    """U(-e, e): the error of a uniform quantiser with error bound e, such as cuSZp's.

    The error of the sum may exceed e by its rounding to the dtype of the model.
    """

    def unit(self, drawn: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        noise = drawn.random(count, np.float32)
        noise *= 2
        noise -= 1
        return noise


class Normal(DrawnNoise):
    """N(0, e) with the standard deviation e, as in the base paper (arXiv 2509.07727).

    It is not bounded: e is exceeded by 32 % of the weights. Its power is three times that of
    `uniform` of the same size.
    """

    def unit(self, drawn: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        return drawn.standard_normal(count, np.float32)


class Coded(Source):
    """What a codec gives back, its bound verified in the dtype that the checkpoint stores.

    That dtype is bf16 where all weights of the matrix are bf16 numbers, else the one that the
    model computes with.
    """

    seeded = False

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.takes_bound = codec.promise == "bound"

    def changed(self, weights: torch.Tensor, size: float, seed: int, place: Place) -> torch.Tensor:
        stored = weights.bfloat16()
        if not torch.equal(stored.to(weights.dtype), weights):
            stored = weights
        return decode(encode(stored.cpu(), self.codec, size)).to(weights)


SOURCES: dict[str, type[DrawnNoise]] = {"uniform": Uniform, "normal": Normal}


def source_named(name: str) -> Source:
    """The source of errors of this name.

    Args:
        name: `uniform`, `normal`, or `codec:NAME` with any codec, such as `codec:sz3`,
            `codec:cuszp:mode=plain` or `codec:rtn-int8`.

    Raises:
        InputError: none has this name, or a package that the codec needs is not installed.
    """
    kind, colon, codec = name.partition(":")
    if kind == "codec" and colon:
        return Coded(codec_named(codec))
    if name not in SOURCES:
        raise InputError(
            f"no error is called {name!r}; there are {', '.join(SOURCES)} and codec:NAME"
        )
    return SOURCES[name]()
