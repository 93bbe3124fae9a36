from offsim.calibration.schema import ForesightFigures
from offsim.study.foreseen import beside
from tests.builders import sized


def test_prompts_are_those_beside_raw_loads() -> None:
    own = ForesightFigures(prefetch="gate", distance=1, seconds=sized((1, 3.0), (40, 9.0)))
    raw = ForesightFigures(prefetch="gate", distance=1, seconds=sized((1, 2.0), (38, 5.0)))
    (made,) = beside([own], [raw])
    assert made.seconds == sized((1, 3.0), (38, 5.0))
    assert (made.prefetch, made.distance) == ("gate", 1)
    assert beside([raw], [raw]) == [raw]
