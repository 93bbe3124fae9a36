import pytest

from tests.builders import codec_figures

from .cases import ALTERNATING, case


def test_a_case_is_simulated() -> None:
    metrics = case().predict()
    assert metrics.tpot_s == pytest.approx(9.0)  # three layers: dense, load, expert
    assert len(case().record().steps) == 5


def test_another_bandwidth_may_exceed_the_machines_own() -> None:
    for link in (None, 1000.0):
        fast = case(link=link).at_bandwidth(4e12)
        assert fast.bandwidth == 4e12
        assert case(link=link).at_bandwidth(500.0).predict().tpot_s == pytest.approx(12.0)


def test_the_bandwidth_is_no_more_than_the_machines_own() -> None:
    assert case(link=None).bandwidth == 1e12
    assert case(link=1e13).bandwidth == 1e12
    assert case(link=1000.0).bandwidth == 1000.0


def test_fewer_bits_make_smaller_blobs() -> None:
    figures = codec_figures(blob_bytes=10_000), codec_figures("cuszp", 0.5, blob_bytes=4000)
    one = case(ALTERNATING, *figures, model={"hidden": 100, "width": 80})  # 24,000 weights
    less = one.with_fewer_bits(1).calibration
    assert [codec.blob_bytes[2][3] for codec in less.codecs] == [7000, 4000]
    none = one.with_fewer_bits(4).calibration
    assert none.codecs[0].blob_bytes == [[0] * 4] * 3


@pytest.mark.parametrize("codec", ["cuszp", "sz3"])
def test_without_loads_only_compute_is_left(codec: str) -> None:
    slow = codec_figures(codec, 0.5, decode_s=3.0, compute_slowdown=2.0, decode_slowdown=2.0)
    one = case(ALTERNATING, slow, codec=codec, bound=0.5, slots=0)
    assert one.predict().tpot_s > 12
    assert one.without_loads().predict().tpot_s == pytest.approx(6.0)
    assert one.without_loads().predict().ttft_s == pytest.approx(6.0)


def test_the_stored_bytes_are_those_of_raw_where_the_dtype_is_larger() -> None:
    large = {"hidden": 1000, "width": 1000}
    assert case(model=large).stored_bytes == 1000
    assert case().stored_bytes == 6
    lossy = case(ALTERNATING, codec_figures("cuszp", 0.5), model=large)
    assert lossy.stored_bytes == 6_000_000
