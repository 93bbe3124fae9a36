import pytest

from offsim.codec.bounds import Bound
from offsim.policy.bound_kinds import by_layer, by_matrix, uniform
from offsim.policy.bounds import Bounds
from offsim.policy.precision import Low
from offsim.study.breakeven import breakevens
from offsim.study.case import Case
from offsim.study.explain import explain
from tests.builders import codec_figures, trace_of

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


def under_a_table(bounds: Bounds) -> Case:
    """Two bounds of cuszp, of 4000 and 3000 B, for experts of 24,000 weights; and raw."""
    figures = [
        codec_figures(
            "cuszp", bound, blob_bytes=4 * nbytes, decode_s=2.0, compute_slowdown=1.0 + bound
        ).model_copy(update={"matrix_bytes": [[[nbytes, nbytes, 2 * nbytes]] * 4] * 3})
        for bound, nbytes in ((0.25, 1000), (0.5, 750))
    ]
    model = {"hidden": 100, "width": 80}
    return case(ALTERNATING, codec_figures(), *figures, model=model, codec="cuszp", bounds=bounds)


def test_fewer_bits_of_a_table_are_fewer_at_each_of_its_bounds() -> None:
    by_layers = under_a_table(by_layer([Bound(0.25), Bound(0.5), Bound(0.5)]))
    less = by_layers.with_fewer_bits(1)
    assert [codec.blob_bytes[2][3] for codec in less.calibration.codecs] == [1000, 1000, 0]
    assert [row[0] for row in by_layers.figures.blob_bytes] == [4000, 3000, 3000]
    assert [row[0] for row in less.figures.blob_bytes] == [1000, 0, 0]
    inside = under_a_table(by_matrix(Bound(0.25), Bound(0.5), Bound(0.25)))
    assert inside.figures.blob_bytes[0][0] == 1000 + 750 + 2000
    assert inside.with_fewer_bits(0.5).figures.blob_bytes[0][0] == 3750 - 3 * 500
    one = under_a_table(uniform(Bound(0.5))).with_fewer_bits(1).calibration
    assert [codec.blob_bytes[0][0] for codec in one.codecs] == [1000, 4000, 0]


def test_without_loads_a_table_costs_nothing() -> None:
    one = under_a_table(by_layer([Bound(0.25), Bound(0.5), Bound(0.5)]))
    assert one.predict().tpot_s > 12
    assert one.without_loads().predict().tpot_s == pytest.approx(6.0)


@pytest.mark.parametrize("codec", ["cuszp", "sz3"])
def test_without_loads_only_compute_is_left(codec: str) -> None:
    slow = codec_figures(codec, 0.5, decode_s=3.0, compute_slowdown=2.0, decode_slowdown=2.0)
    one = case(ALTERNATING, slow, codec=codec, bound=0.5, slots=0)
    assert one.predict().tpot_s > 12
    assert one.without_loads().predict().tpot_s == pytest.approx(6.0)
    assert one.without_loads().predict().ttft_s == pytest.approx(6.0)


def test_questions_are_answered_of_misses_that_come_coarse() -> None:
    coarse = codec_figures("cuszp", 0.5, blob_bytes=500, decode_s=0.25, compute_slowdown=2.0)
    low = {"low": Low(codec="cuszp", bound=0.5, below=1.0)}
    trace = trace_of([[[step % 2, 2]] * 3 for step in range(5)])
    one = case(trace, codec_figures(), coarse, **low)
    assert one.predict().link_bytes < case(trace, codec_figures(), coarse).predict().link_bytes
    compute = one.without_loads().predict()
    assert compute.tpot_s == pytest.approx(9.0)
    assert compute.link_bytes > 0
    found = explain(one)
    assert found.resident == compute
    assert found.split.total_s == found.policy.tpot_s
    assert [rival.codec for rival in breakevens(one).codecs] == ["cuszp"]
