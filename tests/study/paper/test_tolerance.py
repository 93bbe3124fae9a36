import math

import pandas as pd

from offsim.study.paper.tolerance import tolerance_table


def rows(layer: str, *intervals: tuple[float, float]) -> list[dict[str, object]]:
    return [
        {
            "task": "add",
            "place": layer,
            "level": level,
            "ica_change_low": low,
            "ica_change_high": high,
        }
        for level, (low, high) in zip((0.5, 1.0, 1.5), intervals, strict=True)
    ]


def test_bounds_are_tolerated_up_to_the_first_that_is_not() -> None:
    table = pd.DataFrame(
        [
            *rows("0", (-0.01, 0.01), (-0.04, 0.0), (-0.3, -0.2)),
            *rows("1", (-0.2, 0.0), (-0.01, 0.01), (-0.01, 0.01)),  # chance does not make it whole
            *rows("2", (-0.3, -0.2), (-0.3, -0.2), (-0.3, -0.2)),
        ]
    )
    found = tolerance_table(table).set_index("layer")
    assert found["tolerates"].to_dict() == {"0": 1.0, "1": 0.0, "2": 0.0}
    assert found.loc["0", "loses"] == 1.5
    assert math.isnan(found.loc["1", "loses"])
    assert found.loc["2", "loses"] == 0.5
