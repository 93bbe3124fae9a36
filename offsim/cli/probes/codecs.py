"""The codecs: each encodes and decodes a small matrix."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from offsim.cli.probes.base import Found, Probe, fails, works

if TYPE_CHECKING:
    import torch

SHAPE, SIGMA, BOUND, SEED = (64, 96), 0.02, 2.0**-9, 3
"""Of the matrix, N(0, SIGMA) in bf16, and the bound, absolute."""


def probes() -> Iterator[Probe]:
    """A row a codec, those of other packages too, and one for processes that decode."""
    from offsim.codec.registry import codec_names

    for name in codec_names():
        yield Probe(f"codec {name}", partial(tried, name))
    yield Probe("decode in processes", in_a_process, beside=True)


def tried(name: str) -> Found:
    """Whether a codec keeps its promise."""
    import torch

    from offsim.codec import codec_named, decode, encode

    codec, weights = codec_named(name), drawn()
    back = decode(encode(weights, codec, BOUND if codec.promise == "bound" else 0.0))
    if codec.promise == "exact":
        same = torch.equal(back.view(torch.int16), weights.view(torch.int16))
        return works("gives the same bits back") if same else fails("gives other bits back")
    largest = float((back.float() - weights.float()).abs().max())
    if codec.promise == "none":
        return works(f"largest error {largest:.2g}, promises none")
    here = f"largest error {largest:.2g}, allowed {BOUND:.2g}"
    return works(here) if largest <= BOUND else fails(here)


def in_a_process() -> Found:
    """Whether a process beside this one starts, and decodes SZ3 to the same weights."""
    import torch

    from offsim.codec import codec_named, decode, encode
    from offsim.codec.pool import DecodePool

    blob = encode(drawn(), codec_named("sz3"), BOUND)
    with DecodePool(1) as pool:
        (there,) = pool.decode([blob])
    same = torch.equal(there, decode(blob))
    return works("SZ3, the same weights") if same else fails("SZ3 gives other weights there")


def drawn() -> "torch.Tensor":
    """The matrix, [*SHAPE] bf16."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    return (torch.randn(SHAPE, generator=generator) * SIGMA).bfloat16()
