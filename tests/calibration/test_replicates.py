from pathlib import Path

import pytest

from offsim.calibration.replicates import replicate, replicates_of
from offsim.calibration.schema import Calibration, CoolingPoint, ForesightFigures
from offsim.calibration.uncertainty import InnerRun
from offsim.errors import FormatError
from offsim.files import read_yaml, write_yaml
from tests.builders import calibration, codec_figures, figure, sized

INNER = InnerRun(run="raw", prefill=[(1.0,), (1.25,)], decode=[(1.0, 0.9876), (1.0, 2.0)])


def uncertain() -> Calibration:
    made = calibration(codec_figures(decode_s=0.5), codec_figures("cuszp", 0.5))
    others = [
        calibration(codec_figures(decode_s=1 / (3 + n)), codec_figures("cuszp", 0.5), dense_s=2.0)
        for n in range(3)
    ]
    known = replicates_of(made, others)
    return made.model_copy(update={"replicates": known, "inner_runs": [INNER]})


def test_a_replicate_differs_in_figures_alone() -> None:
    made = uncertain()
    assert made.replicates is not None
    assert set(made.replicates.values) == {
        "codecs.0.decode_s.value", "compute.first.0.seconds.value", "compute.dense.0.seconds.value"
    }  # fmt: skip
    one = replicate(made, 1)
    assert one.codecs[0].decode_s.value == 0.25
    assert one.compute.dense[0].seconds.value == 2.0
    assert one.codecs[0].decode_s.p90 == 0.5
    assert (one.replicates, one.inner_runs) == (None, [])
    assert one.codecs[1] == made.codecs[1]
    assert one.model_copy(update={"compute": made.compute, "codecs": made.codecs}) == (
        made.model_copy(update={"replicates": None, "inner_runs": []})
    )
    for number in (-1, 3):
        with pytest.raises(ValueError, match=f"no replicate {number}"):
            replicate(made, number)
    with pytest.raises(ValueError, match="no replicate 0"):
        replicate(calibration(), 0)


def test_round_trip_through_yaml(tmp_path: Path) -> None:
    made = uncertain()
    write_yaml(tmp_path / "c.yaml", made)
    assert read_yaml(tmp_path / "c.yaml", Calibration) == made
    assert "codecs.0.decode_s.value: 0.333333 0.25 0.2" in (tmp_path / "c.yaml").read_text()


def test_a_file_without_them_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    write_yaml(path, calibration())
    text = path.read_text()
    assert "replicates: null\ninner_runs: []\n" in text
    path.write_text(text.replace("replicates: null\ninner_runs: []\n", ""))
    assert read_yaml(path, Calibration) == calibration()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("codecs.0.decode_s.value", "codecs.7.decode_s.value", "there is no figure codecs.7"),
        ("count: 3", "count: 4", "3 values in 4 replicates"),
        ("1 2", "1 2 3", "the rounds of decode are not alike"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "c.yaml"
    write_yaml(path, uncertain())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FormatError, match=says):
        read_yaml(path, Calibration)


def test_tables_are_read_at_the_sizes_of_the_calibration() -> None:
    def with_tables(*expert: tuple[int, float], idle_s: float, share: float) -> Calibration:
        made = calibration()
        compute = made.compute.model_copy(
            update={
                "expert": sized(*expert),
                "cooling": [CoolingPoint(idle_s=idle_s, extra=figure(idle_s / 2))],
                "still_cold": share,
                "foresight": [
                    ForesightFigures(prefetch="gate", distance=1, seconds=sized(*expert))
                ],
            }
        )
        return made.model_copy(update={"compute": compute})

    made = with_tables((1, 1.0), (4, 4.0), idle_s=1.0, share=0.25)
    other = with_tables((2, 3.0), (3, 4.0), (6, 7.0), idle_s=2.0, share=0.5)
    found = replicates_of(made, [other]).values
    assert found == {
        "compute.expert.0.seconds.value": (3.0,),
        "compute.expert.1.seconds.value": (5.0,),
        "compute.foresight.0.seconds.0.seconds.value": (3.0,),
        "compute.foresight.0.seconds.1.seconds.value": (5.0,),
        "compute.still_cold": (0.5,),
    }, "half a second is lost after one second in both"
