"""Golden streams of cuSZp: what the official library makes of inputs that anyone can make.

The checksums are of cuSZp V3.0.0 itself. The inputs are made of whole numbers and of products and
sums that are rounded one by one, so that they are the same on every machine.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from offsim.codec.base import Buffer, Float32

BOUND = 0.01
"""Of all of them, absolute."""


def _offset_hash() -> Float32:
    hashed = np.arange(9999, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return (100.0 + hashed.astype(np.float64) / 4294967296.0).astype(np.float32)


INPUTS: dict[str, tuple[Callable[[], Float32], str]] = {
    "constant": (
        lambda: np.full(32768, 1.2345, np.float32),
        "74a736ba1613820bd27d7b3c8896bcc49de8e9388a866af91fe9dcb0396eaee6",
    ),
    "hashes": (
        _offset_hash,
        "00f706656a26af1ab024256983ef0084a4e6abfa7808da06026f613c7d8278c0",
    ),
    "ties": (
        lambda: ((np.arange(2001) - 1000) * 0.125).astype(np.float32),
        "df799b55c3877334d398b299d7d110d99e70ebf106a2203acedfcbb27c44435d",
    ),
}
"""By name, what makes the values [count] float32, and the SHA-256 of their bytes."""


@dataclass(frozen=True, slots=True)
class Golden:
    """A stream of the official library.

    Attributes:
        values: name of the input.
        mode: of cuSZp.
        stream: SHA-256 of the stream.
        decoded: SHA-256 of the decoded float32 values.
    """

    values: str
    mode: str
    stream: str
    decoded: str


GOLDEN = (
    Golden(
        "constant",
        "fixed",
        "10256c3b21ce9a66104519f9e460196ee18010d065e24ec9a57a18a22f9750c4",
        "646a24eabd7c07b0a613b7b3fa2b31be1aaff70275c7283572d97a64ac7eaca3",
    ),
    Golden(
        "ties",
        "fixed",
        "ec519e3022fe538bfd2ad3ecffb9468624fedd2756cc3df1be1026b08a149ada",
        "a1300f6da3644f2e33662f8da222b3540746be200c919cf97c26afcee5cbfb03",
    ),
    Golden(
        "hashes",
        "fixed",
        "d4880cc75b4acac73e284b92ea7b902abd3db590da826157e973882881c1684c",
        "2e0fc52659013e9b61173a9d3bec6782991ba66444a1b21b68b615ff42683d39",
    ),
    Golden(
        "constant",
        "plain",
        "b8f685151861b825bfe0e7b68fc6fe3ef2f7aa2c9159f95ad8b8a680c9784471",
        "646a24eabd7c07b0a613b7b3fa2b31be1aaff70275c7283572d97a64ac7eaca3",
    ),
    Golden(
        "ties",
        "plain",
        "3584a42fa05d5129e4fa1fbad954ca716748ca3973521ce6c1ca4e63cc7940cd",
        "a1300f6da3644f2e33662f8da222b3540746be200c919cf97c26afcee5cbfb03",
    ),
    Golden(
        "hashes",
        "plain",
        "b022f089b33bd43db92320e06c0fadde28a59ad1e64f4fa14c43cb81bf4bc3b4",
        "2e0fc52659013e9b61173a9d3bec6782991ba66444a1b21b68b615ff42683d39",
    ),
    Golden(
        "constant",
        "outlier",
        "5437fef847f7e613f5dcacc13749087a6a47d1191d04fe8e0d410c7a57a4b77c",
        "646a24eabd7c07b0a613b7b3fa2b31be1aaff70275c7283572d97a64ac7eaca3",
    ),
    Golden(
        "ties",
        "outlier",
        "269ca456018fd5f378461834d931d31d996957baf44aa99d1152502d423c5db7",
        "a1300f6da3644f2e33662f8da222b3540746be200c919cf97c26afcee5cbfb03",
    ),
    Golden(
        "hashes",
        "outlier",
        "be9298589778e048a42887bc9450867bccef9cf999fb1633e9a453fdbfe596cb",
        "2e0fc52659013e9b61173a9d3bec6782991ba66444a1b21b68b615ff42683d39",
    ),
)


def sha256(data: Buffer) -> str:
    """The checksum of bytes."""
    return hashlib.sha256(data).hexdigest()
