import numpy as np

from offsim.calibration.reading import at_size, extra_after, foresight_s, sizing
from offsim.calibration.schema import CoolingPoint, ForesightFigures
from tests.builders import figure, sized


def test_a_table_is_linear_between_and_proportional_beyond() -> None:
    table = sized((1, 1.0), (3, 2.0), (5, 10.0))
    assert [at_size(table, size) for size in (1, 2, 3, 5, 10)] == [1.0, 1.5, 2.0, 10.0, 20.0]
    assert [sizing(table)(size) for size in (1, 2, 3, 5, 10)] == [1.0, 1.5, 2.0, 10.0, 20.0]


def test_cooling_is_linear_and_then_constant() -> None:
    points = [CoolingPoint(idle_s=1.0, extra=figure(0.5))]
    assert [extra_after(points, idle) for idle in (0.0, 0.5, 1.0, 9.0)] == [0.0, 0.25, 0.5, 0.5]
    assert extra_after([], 3.0) == 0.0


def test_foresight_goes_with_the_distance_and_is_nothing_where_it_is_not_known() -> None:
    known = [
        ForesightFigures(prefetch="gate", distance=at, seconds=sized((1, at * 0.5), (3, at * 1.5)))
        for at in (1, 2)
    ]
    sizes = np.array([1, 2])
    assert foresight_s(known, "gate", 2, sizes).tolist() == [1.0, 2.0]
    assert foresight_s(known, "gate", 4, sizes).tolist() == [2.0, 4.0]
    assert foresight_s(known, "popularity", 1, sizes).tolist() == [0.0, 0.0]
