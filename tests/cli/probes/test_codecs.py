import importlib
from typing import Any

import pytest
import torch

from offsim.cli.probes import codecs
from offsim.codec import CODECS, Codec, registry
from offsim.codec.base import Buffer, Shape
from offsim.errors import InputError


@pytest.mark.parametrize("name", ["raw", "sz3", "cuszp", "lossless", "rtn-int8", "rtn-int4"])
def test_codecs_work(name: str) -> None:
    assert codecs.tried(name).state == "works"


def test_every_codec_has_a_row() -> None:
    names = [probe.what for probe in codecs.probes()]
    assert names == [*(f"codec {name}" for name in CODECS), "decode in processes"]


def test_a_process_decodes() -> None:
    assert codecs.in_a_process().state == "works"


def test_what_a_codec_lacks_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "zfpy":
            raise ImportError("No module named 'zfpy'")
        return load(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(InputError, match=r"; run: pip install 'offsim\[zfp\]'$"):
        codecs.tried("zfp")


class Coarse(Codec):
    """Gives back zeros, whatever it promises."""

    name = "coarse"
    placement = "host"

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        return b""

    def decode(
        self, payload: Buffer, shape: Shape, dtype: torch.dtype, bound: float
    ) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize("promise", ["exact", "none", "bound"])
def test_a_codec_that_breaks_its_promise_fails(
    monkeypatch: pytest.MonkeyPatch, promise: str
) -> None:
    import offsim.codec

    monkeypatch.setattr(Coarse, "promise", promise)
    monkeypatch.setitem(registry.CODECS, "coarse", Coarse)
    # As if the check of the encoder, which would refuse it first, were not there.
    encode, codec = offsim.codec.encode, registry.codec_named("raw")
    monkeypatch.setattr(offsim.codec, "encode", lambda weights, *_: encode(weights, codec, 0.0))
    monkeypatch.setattr(offsim.codec, "decode", lambda blob: torch.zeros(codecs.SHAPE).bfloat16())
    assert codecs.tried("coarse").state == ("works" if promise == "none" else "FAILS")
