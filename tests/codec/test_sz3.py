import numpy as np
import pytest

from offsim.codec import decode, encode
from offsim.codec.sz3 import ALGORITHMS, Sz3
from offsim.errors import CodecError, InputError

from .checks import assert_bound_kept, weights_like

VALUES = np.random.default_rng(0).normal(0, 0.02, 1000).astype(np.float32)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_keeps_the_bound_and_is_named_in_the_blob(algorithm: str) -> None:
    blob = assert_bound_kept(weights_like(20, 30), Sz3(algorithm), 1e-3)
    assert blob.header.codec == "sz3"
    assert blob.header.options == {"algorithm": algorithm}


def test_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InputError, match="'FFT'"):
        Sz3("FFT")


def test_is_a_lossy_host_codec() -> None:
    assert Sz3().placement == "host"
    assert not Sz3().lossless
    assert Sz3().options() == {"algorithm": "NOPRED"}


def test_decode_needs_no_other_knowledge_than_the_blob() -> None:
    blob = encode(weights_like(20, 30), Sz3("INTERP"), 1e-3)
    assert decode(blob).shape == (20, 30)


def test_tighter_bound_is_kept_too() -> None:
    codec = Sz3()
    for bound in (1e-6, 1e-4, 1e-2):
        back = codec.decode_values(codec.encode_values(VALUES, bound), len(VALUES), bound)
        assert np.abs(back.astype(float) - VALUES).max() <= bound * (1 + 1e-4)


def test_empty_input_has_no_stream() -> None:
    assert Sz3().encode_values(VALUES[:0], 1e-3) == b""
    assert Sz3().decode_values(b"", 0, 1e-3).shape == (0,)


def test_values_with_gaps_in_memory_encode_as_their_copy() -> None:
    assert Sz3().encode_values(VALUES[::2], 1e-3) == Sz3().encode_values(VALUES[::2].copy(), 1e-3)


@pytest.mark.parametrize("kept", [0, 10, 400])
def test_cut_stream_is_refused(kept: int) -> None:
    stream = Sz3().encode_values(VALUES, 1e-3)
    with pytest.raises(CodecError, match="sz3"):
        Sz3().decode_values(stream[:kept], len(VALUES), 1e-3)


@pytest.mark.parametrize("count", [1, 999, 1001, 2000])
def test_stream_of_another_count_is_refused(count: int) -> None:
    stream = Sz3().encode_values(VALUES, 1e-3)
    with pytest.raises(CodecError, match=f"not a stream of {count} values"):
        Sz3().decode_values(stream, count, 1e-3)
