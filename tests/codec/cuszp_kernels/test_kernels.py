"""Every implementation that runs on a CPU gives the same bytes and the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from offsim.codec import cuszp_kernels
from offsim.codec.cuszp import decode_into, decode_stream, encode_stream
from offsim.codec.cuszp_kernels import MODES, Kernels, Native, kernels, library
from offsim.codec.cuszp_kernels.layout import inverse_of, rate_area_of
from offsim.codec.cuszp_kernels.loops import Loops
from offsim.codec.cuszp_kernels.native import LEVELS

from .. import cuszp_reference as reference
from ..checks import DTYPES, sha256
from ..cuszp_cases import CASES, INPUTS, id_of, normal


def natives() -> list[Native]:
    path = library()
    if path is None:
        return []
    return [Native(path, level) for level in Native(path).levels]


ALL: list[Kernels] = [Loops(), *natives()]
EACH = pytest.mark.parametrize("core", ALL, ids=lambda core: core.name)
EACH_MODE = pytest.mark.parametrize("mode", MODES)


@EACH
@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_official_streams(core: Kernels, case: dict[str, Any]) -> None:
    stream = encode_stream(INPUTS[case["name"]](), case["eb"], case["mode"], with_kernels=core)
    assert sha256(stream) == case["stream"]
    decoded = decode_stream(stream, case["n"], case["eb"], case["mode"], with_kernels=core)
    assert sha256(decoded.tobytes()) == case["decoded"]


ANY_BITS = hnp.arrays(np.uint32, st.integers(1, 200), elements=st.integers(0, 2**32 - 1))
MIXED = hnp.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.one_of(
        st.floats(-0.125, 0.125, width=32), st.floats(-1e4, 1e4, width=32), st.just(0.0)
    ),
)


@EACH
@EACH_MODE
@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    values=st.one_of(ANY_BITS.map(lambda bits: bits.view(np.float32)), MIXED),
    bound=st.sampled_from([1e-4, 1e-3, 2.0**-7, 0.5, 1e4]),
)
def test_same_as_the_reference(core: Kernels, mode: str, values: np.ndarray, bound: float) -> None:
    with np.errstate(all="ignore"):  # any bits: NaN, infinities, quotients past int32
        expected = reference.encode(values, bound, mode)
        stream = encode_stream(values, bound, mode, with_kernels=core)
        assert stream == expected
        decoded = decode_stream(stream, len(values), bound, mode, with_kernels=core)
        wanted = reference.decode(stream, len(values), bound, mode)
    np.testing.assert_array_equal(decoded.view(np.uint32), wanted.view(np.uint32))


@EACH
@EACH_MODE
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [1e-40, 1e-7, 0.02, 1e4, 3e37])
def test_reads_and_writes_every_dtype(
    core: Kernels, mode: str, dtype: torch.dtype, scale: float
) -> None:
    values = torch.from_numpy(normal(3, 999, scale)).to(dtype)
    values[torch.isinf(values)] = 0
    bound = max(scale / 64, 2e-38)  # below that, the half inverse of a bound is infinite
    inverse = float(inverse_of(bound))
    rates, payload = np.zeros(32, np.uint8), np.empty(32 * 128, np.uint8)
    size = core.encode(values, inverse, MODES[mode], rates, payload)
    assert core.payload_bytes(rates, MODES[mode]) == size
    stream = encode_stream(values.float().numpy(), bound, mode, with_kernels=core)
    assert rates.tobytes() + bytes(rate_area_of(999) - 32) + payload[:size].tobytes() == stream
    out = torch.empty(999, dtype=dtype)
    decode_into(stream, out, bound, mode, with_kernels=core)
    wide = torch.from_numpy(decode_stream(stream, 999, bound, mode, with_kernels=core))
    assert torch.equal(out.view(torch.uint8), wide.to(dtype).view(torch.uint8))


@EACH
@EACH_MODE
@pytest.mark.parametrize("count", [32, 45, 64])
@pytest.mark.parametrize("scale", [1e-4, 0.02, 3.0, 1e2, 1e4, 1e6, 1e9])
def test_nothing_past_the_end_is_touched(
    core: Kernels, mode: str, count: int, scale: float
) -> None:
    values, blocks = torch.from_numpy(normal(5, count, scale)), -(-count // 32)
    rates, room = np.zeros(blocks, np.uint8), np.full(128 * blocks + 64, 77, np.uint8)
    inverse = float(inverse_of(1e-3))
    size = core.encode(values, inverse, MODES[mode], rates, room[: 128 * blocks])
    assert (room[128 * blocks :] == 77).all()
    out = torch.full((count + 32,), 7.0)
    core.decode(rates, room[:size].copy(), 1e-3, MODES[mode], out[:count])
    assert bool((out[count:] == 7.0).all())
    stream = encode_stream(values.numpy(), 1e-3, mode, with_kernels=core)
    assert stream[rate_area_of(count) :] == room[:size].tobytes()


@EACH
def test_every_rate_is_judged_as_the_format_has_it(core: Kernels) -> None:
    for rate in range(256):
        one = np.array([rate], np.uint8)
        plain = 4 + 4 * rate if rate else 0
        assert core.payload_bytes(one, MODES["fixed"]) == (plain if rate < 32 else -1)
        assert core.payload_bytes(one, MODES["plain"]) == (plain if rate < 32 else -1)
        if rate & 128:
            plain = 4 + 4 * (rate & 31) + (rate >> 5 & 3) + 1
        valid = rate < 32 or rate >= 128
        assert core.payload_bytes(one, MODES["outlier"]) == (plain if valid else -1)


def test_the_fastest_is_taken() -> None:
    path = library()
    if path is None:
        assert kernels().name == "numba"
    else:
        native = Native(path)
        assert kernels().name == native.name == LEVELS[native.levels[-1]]
        assert native.levels[0] == 0


def test_a_level_that_the_cpu_lacks_is_refused() -> None:
    path = library()
    if path is None:
        pytest.skip("needs the compiled core")
    missing = next(level for level in range(len(LEVELS)) if level not in Native(path).levels)
    with pytest.raises(ValueError, match="this CPU has no"):
        Native(path, missing)


@pytest.mark.parametrize("content", [None, b"not a library"])
def test_numba_where_there_is_no_compiled_core(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = None
    if content is not None:
        path = tmp_path / "core.so"
        path.write_bytes(content)
    monkeypatch.setattr(cuszp_kernels, "library", lambda: path)
    kernels.cache_clear()
    try:
        assert kernels().name == "numba"
    finally:
        monkeypatch.undo()
        kernels.cache_clear()
