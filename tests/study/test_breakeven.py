import math
from dataclasses import dataclass, replace

import pytest

from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bound_kinds import by_layer, uniform
from offsim.record import Metrics
from offsim.study.answers import bandwidth_verdict, slots_verdict, speed
from offsim.study.breakeven import (
    HIGHEST,
    LOWEST,
    MOST_SLOTS,
    Breakevens,
    bandwidths_tried,
    breakevens,
    slots_tried,
)
from offsim.study.case import Case
from tests.builders import codec_figures, trace_of

from .cases import ALTERNATING, case

RAW = codec_figures(blob_bytes=10**9)


def against_raw(
    codec: str = "cuszp", blob_bytes: int = 5 * 10**8, decode_s: float = 0.5, link: float = 1e9
) -> Breakevens:
    rival = codec_figures(codec, 0.5, blob_bytes=blob_bytes, decode_s=decode_s)
    model = {"hidden": 10_000, "width": 16_667}  # 1 GB in bf16, as raw
    return breakevens(case(ALTERNATING, RAW, rival, link=link, model=model))


def test_the_crossing_is_where_saved_bytes_take_as_long_as_decoding() -> None:
    found = against_raw()
    (one,) = found.codecs
    assert one.verdict == "below"
    (crossing,) = one.crossings
    assert crossing.bytes_per_s == pytest.approx(1e9, rel=0.01)
    assert crossing.tpot_s == pytest.approx(9.0, rel=0.01)
    assert one.alone.bytes_per_s == pytest.approx(1e9)
    assert one.alone.raw_s == pytest.approx(1.0)
    assert one.alone.codec_s == pytest.approx(1.0)
    assert bandwidth_verdict(one).startswith("below ")
    assert found.label == "SIMULATED"


def test_free_decoding_always_pays() -> None:
    (one,) = against_raw(decode_s=0.0).codecs
    assert (one.verdict, one.crossings) == ("always", [])
    assert math.isinf(one.alone.bytes_per_s)
    assert bandwidth_verdict(one) == "always"


@pytest.mark.parametrize("codec", ["cuszp", "sz3"])
def test_what_saves_nothing_on_the_link_never_pays(codec: str) -> None:
    blob = 10**9 if codec == "cuszp" else 10**6  # a host codec saves host memory alone
    found = against_raw(codec, blob)
    (one,) = found.codecs
    assert (one.verdict, one.largest_slots) == ("never", None)
    assert one.alone.bytes_per_s == 0
    assert slots_verdict(one, found.slots) == "never faster"


def test_over_the_slots_at_the_given_link() -> None:
    slow, fast = against_raw(link=0.5e9), against_raw(link=2e9)
    assert slow.slots == [0, 1, 2, 3, 4]
    assert slow.codecs[0].largest_slots == 4
    assert slots_verdict(slow.codecs[0], slow.slots) == "always faster"
    assert fast.codecs[0].largest_slots is None
    assert slow.raw_slots_tpot_s[:3] == pytest.approx([12, 12, 7.5])
    assert slow.codecs[0].slots_tpot_s[:3] == pytest.approx([10.5, 10.5, 7.125])


@dataclass(frozen=True)
class Wavy(Case):
    """The codec is faster below 10 GB/s, from 100 to 1000 GB/s, and with 1 or 3 slots."""

    def predict(self) -> Metrics:
        metrics = super().predict()
        if self.policy.codec == "raw":
            return replace(metrics, tpot_s=2.0)
        across = self.bandwidth != 1e9
        wins = self.bandwidth < 1e10 or 1e11 < self.bandwidth < 1e12
        faster = wins if across else self.policy.slots in {1, 3}
        return replace(metrics, tpot_s=1.0 if faster else 3.0)


def test_more_than_one_crossing_is_said() -> None:
    plain = case(ALTERNATING, RAW, codec_figures("cuszp", 0.5), link=1e9)
    found = breakevens(Wavy(plain.trace, plain.policy, plain.calibration, 1e9))
    (one,) = found.codecs
    assert one.verdict == "several"
    assert [c.faster_below for c in one.crossings] == [True, False, True]
    places = [crossing.bytes_per_s for crossing in one.crossings]
    assert places == pytest.approx([1e10, 1e11, 1e12], rel=0.01)
    assert bandwidth_verdict(one).count(",") == 1
    assert "from " in bandwidth_verdict(one)
    assert one.faster_slots == [1, 3]
    assert slots_verdict(one, found.slots) == "faster up to 3, not at all of fewer"
    last = replace(one, crossings=one.crossings[:2])
    assert "above " in bandwidth_verdict(last)


def test_codecs_can_be_named() -> None:
    codecs = RAW, codec_figures("cuszp", 0.5), codec_figures("cuszp", 0.25)
    asked = case(ALTERNATING, *codecs, link=1e9)
    assert [one.bound for one in breakevens(asked).codecs] == [0.5, 0.25]
    (named,) = breakevens(asked, [("cuszp", 0.25)]).codecs
    assert named.storage == "cuszp 0.25"
    with pytest.raises(InputError, match="cuszp at bound 1 is not in the calibration"):
        breakevens(asked, [("cuszp", 1.0)])


def test_a_table_of_bounds_is_one_more() -> None:
    codecs = (
        RAW,
        codec_figures("cuszp", 0.5, blob_bytes=4 * 10**8, decode_s=0.5),
        codec_figures("cuszp", 0.25, blob_bytes=7 * 10**8, decode_s=0.5),
    )
    asked = case(ALTERNATING, *codecs, link=1e9)
    tables = uniform(Bound(0.25)), by_layer([Bound(0.5), Bound(0.25), Bound(0.25)])
    alike, tight, mixed = breakevens(
        asked, [("cuszp", tables[0]), ("cuszp", 0.25), ("cuszp", tables[1])]
    ).codecs
    assert [one.storage for one in (tight, mixed)] == ["cuszp 0.25", "cuszp bounds 2 rules"]
    assert replace(alike, storage=tight.storage, bound=0.25) == tight
    assert mixed.alone.bytes_per_s == pytest.approx((1 - 0.6) * 1e9 / 0.5)
    (crossing,) = mixed.crossings
    assert tight.crossings[0].bytes_per_s < crossing.bytes_per_s
    with pytest.raises(InputError, match="cuszp at bound 1 is not in the calibration"):
        breakevens(asked, [("cuszp", uniform(Bound(1.0)))])


def test_what_has_no_answer() -> None:
    lossy = codec_figures("cuszp", 0.5)
    with pytest.raises(InputError, match="no codec but raw"):
        breakevens(case())
    with pytest.raises(InputError, match="raw at bound 0 is not in the calibration"):
        breakevens(case(ALTERNATING, lossy, codec="cuszp", bound=0.5))
    with pytest.raises(InputError, match="two output tokens"):
        breakevens(case(trace_of([[[0]] * 3]), RAW, lossy))


def test_slots_are_few() -> None:
    for experts in (1, 2, 8, 64, 512):
        slots = slots_tried(experts)
        assert slots[0] == 0
        assert slots[-1] == experts
        assert len(slots) <= MOST_SLOTS


def test_bandwidths_keep_to_what_the_clock_can_count() -> None:
    usual = bandwidths_tried(1000)
    assert usual[0] == pytest.approx(LOWEST)
    assert usual[-1] == pytest.approx(HIGHEST)
    assert len(usual) == 15
    assert bandwidths_tried(10**15)[0] == pytest.approx(5e8)


def test_speeds_as_text() -> None:
    assert [speed(value) for value in (2e6, 44.7e9, 1e13)] == ["2 MB/s", "44.7 GB/s", "10 TB/s"]
