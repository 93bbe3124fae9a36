from pathlib import Path
from typing import Any

import pytest
import yaml

from offsim.errors import FormatError
from offsim.files import read_yaml
from offsim.study.sweep.spec import SweepSpec

from .made import BASE


def read(folder: Path, **more: Any) -> SweepSpec:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**BASE, **more}))
    return read_yaml(path, SweepSpec)


def test_a_block_is_a_grid_a_list_or_a_sample(tmp_path: Path) -> None:
    blocks = [
        {"grid": {"policy.slots": [1, 2]}},
        {"list": [{"policy.slots": 3, "policy.low": None}]},
        {"sample": {"count": 3, "fields": {"policy.slots": {"low": 1, "high": 4}}}},
    ]
    found = read(tmp_path, vary=blocks).vary
    assert [block.points is None for block in found] == [True, False, True]
    assert found[2].sample is not None
    assert found[2].sample.method == "latin-hypercube"


RANGE = {"low": 1, "high": 2}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"version": 2}, "version is 2: Input should be less than or equal to 1"),
        ({"format": "offsim-bounds"}, "format is 'offsim-bounds'"),
        ({"traces": {}}, "traces is {}"),
        ({"varies": []}, "varies is []: Extra inputs are not permitted"),
        ({"vary": [{}]}, "vary.0 is {}: Value error, give one of grid, list and sample"),
        ({"vary": [{"grid": {"a": 1}}]}, "vary.0.grid.a is 1: Input should be a valid list"),
        (
            {"vary": [{"sample": {"count": 0, "fields": {"a": RANGE}}}]},
            "vary.0.sample.count is 0",
        ),
        (
            {"vary": [{"sample": {"count": 1, "fields": {"a": {"low": 2, "high": 1}}}}]},
            "high 1 is not above low 2",
        ),
        (
            {"vary": [{"sample": {"count": 1, "fields": {"a": {**RANGE, "scale": "cubic"}}}}]},
            "scale is 'cubic'",
        ),
        (
            {
                "vary": [
                    {"sample": {"count": 1, "fields": {"a": {**RANGE, "low": 0.5, "whole": 1}}}}
                ]
            },
            "low 0.5 and high 2 are not whole",
        ),
        (
            {
                "vary": [
                    {"sample": {"count": 1, "fields": {"a": {**RANGE, "low": 0, "scale": "log"}}}}
                ]
            },
            "low 0 is not above 0, as scale log needs it",
        ),
    ],
)
def test_what_no_spec_says_is_refused(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    with pytest.raises(FormatError, match=r"sweep\.yaml: ") as refused:
        read(tmp_path, **more)
    assert says in str(refused.value)
