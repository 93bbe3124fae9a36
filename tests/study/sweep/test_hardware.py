import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.calibration.schema import Calibration, CoolingPoint, ForesightFigures
from offsim.errors import InputError
from offsim.study.sweep.hardware import overridden
from tests.builders import calibration, codec_figures, figure, sized

LOW, HIGH = (
    codec_figures("cuszp", bound, blob_bytes=500, decode_s=0.5).model_copy(
        update={"alone_s": figure(0.75)}
    )
    for bound in (0.25, 0.5)
)
BOX = calibration(codec_figures(), LOW, HIGH)


def test_a_number_is_set_and_multiplied() -> None:
    assert overridden(BOX, {"link.bytes_per_s": 3.2e10}).link.bytes_per_s == 3.2e10
    assert overridden(BOX, {"link.bytes_per_s.times": 2.0}).link.bytes_per_s == 2e12
    both = overridden(BOX, {"link.latency_s": 3.0, "link.latency_s.times": 2.0})
    assert both.link.latency_s == 6.0
    assert BOX.link.latency_s == 0.0


def test_a_time_has_no_spread_then_and_keeps_its_label() -> None:
    wake = overridden(BOX, {"handover.wake_s": 2.0}).handover.wake_s
    assert (wake.value, wake.p10, wake.p90, wake.label) == (2.0, 2.0, 2.0, "MEASURED")


def test_a_codec_stands_for_all_of_its_bounds() -> None:
    found = overridden(BOX, {"codecs.cuszp.compute_slowdown": 1.5}).codecs
    assert [one.compute_slowdown for one in found] == [1.0, 1.5, 1.5]
    found = overridden(BOX, {"codecs.all.decode_slowdown.times": 2.0}).codecs
    assert [one.decode_slowdown for one in found] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "change", [{"codecs.cuszp.decode_s.times": 2.0}, {"codecs.cuszp.decode_s": 1}]
)
def test_a_decoder_that_slept_goes_with_its_speed(change: dict[str, float]) -> None:
    found = overridden(BOX, change).codecs[1]
    assert found.decode_s.value == 1.0
    assert found.alone_s is not None
    assert found.alone_s.value == 1.5


def test_a_table_is_multiplied_in_its_times_alone() -> None:
    compute = BOX.compute.model_copy(
        update={
            "expert": sized((1, 1.0), (8, 3.0)),
            "cooling": [CoolingPoint(idle_s=1.0, extra=figure(0.5))],
            "foresight": [ForesightFigures(prefetch="gate", distance=1, seconds=sized((1, 0.1)))],
        }
    )
    times = {f"compute.{name}.times": 2.0 for name in ("expert", "cooling", "foresight")}
    found = overridden(BOX.model_copy(update={"compute": compute}), times).compute
    assert [(p.size, p.seconds.value) for p in found.expert] == [(1, 2.0), (8, 6.0)]
    assert (found.cooling[0].idle_s, found.cooling[0].extra.value) == (1.0, 1.0)
    assert found.foresight[0].seconds[0].seconds.value == 0.2


@given(times=st.floats(0.01, 10))
def test_blobs_of_other_sizes_are_a_calibration_still(times: float) -> None:
    parts = [[[100, 150, 250]] * 4 for _ in range(3)]
    own = LOW.model_copy(update={"matrix_bytes": parts})
    box = BOX.model_copy(update={"codecs": [own]})
    found = overridden(box, {"codecs.cuszp.blob_bytes.times": times})
    assert Calibration.model_validate(found.model_dump()) == found
    assert found.codecs[0].blob_bytes[0][0] == sum(round(size * times) for size in (100, 150, 250))


def test_the_ratio_is_that_of_the_blobs() -> None:
    assert overridden(BOX, {"codecs.cuszp.blob_bytes.times": 0.5}).codecs[1].ratio == 4.0


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("link.bytes_per_s", 0.0, "hardware.link.bytes_per_s: bytes_per_s is 0.0: Input should"),
        (
            "link.bytes_per_s.times",
            0.0,
            "link.bytes_per_s.times is 0; a multiple is from 1e-06 to 1e+06",
        ),
        (
            "link.latency_s",
            1e7,
            "hardware.link.latency_s is 1e+07; but for rates, 1e+06 is the most",
        ),
        ("handover.wake_s", -1.0, "hardware.handover.wake_s: value is -1.0"),
        ("codecs.raw.compute_slowdown", 0.5, "compute_slowdown is 0.5"),
        ("link.speed", 1.0, "the calibration has no figure link.speed; docs/formats.md"),
        ("link", 1.0, "the calibration has no figure link"),
        ("link.times", 2.0, "the calibration has no figure link"),
        ("codecs.sz3.decode_s", 1.0, "the calibration has no figure codecs.sz3.decode_s"),
        ("codecs.raw", 1.0, "the calibration has no figure codecs.raw"),
        ("codecs.raw.alone_s", 1.0, "the calibration has no figure codecs.raw.alone_s"),
        ("codecs.raw.codec.times", 2.0, "the calibration has no figure codecs.raw.codec"),
        ("disk.latency_s", 1.0, "the calibration has no figure disk.latency_s"),
        ("link.latency_s.value", 1.0, "the calibration has no figure link.latency_s.value"),
        ("compute.expert", 1.0, "multiply it with hardware.compute.expert.times"),
        ("codecs.raw.blob_bytes", 1.0, "multiply it with hardware.codecs.raw.blob_bytes.times"),
        ("codecs.raw.ratio", 2.0, "no simulation goes by codecs.raw.ratio; change a figure of"),
        ("model.layers", 2.0, "no simulation goes by model.layers"),
    ],
)
def test_what_no_machine_has_is_refused(path: str, value: float, says: str) -> None:
    with pytest.raises(InputError, match=r"hardware\.") as refused:
        overridden(BOX, {path: value})
    assert says in str(refused.value)
