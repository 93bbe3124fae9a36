import pytest
from pydantic import ValidationError

from offsim.calibration.uncertainty import InnerRun, Replicates, changed, floats
from tests.builders import calibration, codec_figures


def test_numbers_are_one_line_of_text_in_a_file() -> None:
    made = Replicates(count=3, values={"link.latency_s": (0.5, 1e-7, 2.0)})
    dumped = made.model_dump(mode="json")
    assert dumped["values"] == {"link.latency_s": "0.5 1e-07 2"}
    assert Replicates.model_validate(dumped) == made
    one = Replicates(count=1, values={"a": (2.0,)})
    assert Replicates.model_validate(one.model_dump(mode="json")) == one


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("1 2", "a has 2 values in 3 replicates"),
        ("1 2 -3", "greater than or equal to 0"),
        ("1 2 nan", "finite number"),
        ("1 2 many", "valid number"),
    ],
)
def test_replicates_that_cannot_be(values: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Replicates.model_validate({"count": 3, "values": {"a": values}})


@pytest.mark.parametrize(
    ("prefill", "decode", "says"),
    [
        (["1", "1 1"], ["1", "1"], "the rounds of prefill are not alike"),
        (["1"], ["1", "1"], "the rounds of prefill are not alike"),
        (["1", "1"], ["1", "1 1"], "the rounds of decode are not alike"),
        (["", ""], ["", ""], "at least one step"),
        ([], [], "at least 2"),
    ],
)
def test_inner_runs_that_cannot_be(prefill: list[str], decode: list[str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        InnerRun.model_validate({"run": "raw", "prefill": prefill, "decode": decode})


def test_every_number_with_a_fraction_has_a_path_but_spreads() -> None:
    found = floats(calibration(codec_figures(), codec_figures("sz3", 0.5, decode_s=0.25)))
    assert found["codecs.1.decode_s.value"] == 0.25
    assert found["compute.dense.0.seconds.value"] == 1.0
    assert found["compute.still_cold"] == 0.0
    assert {"link.latency_s", "link.bytes_per_s", "codecs.0.compute_slowdown"} <= found.keys()
    assert not [path for path in found if path.endswith(("p10", "p90", "samples", "size"))]


def test_what_is_changed_is_a_copy() -> None:
    made = calibration(codec_figures(), codec_figures("sz3", 0.5))
    values = {"codecs.1.unpack_s.value": 0.5, "link.latency_s": 0.125, "compute.still_cold": 0.5}
    other = changed(made, values)
    assert {path: floats(other)[path] for path in values} == values
    assert floats(made) == {**floats(other), **dict.fromkeys(values, 0.0)}
    assert changed(made, {}) == made
    with pytest.raises(KeyError, match=r"codecs\.2"):
        changed(made, {"codecs.2.ratio": 1.0})
