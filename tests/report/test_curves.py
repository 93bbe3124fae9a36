import pandas as pd

from offsim.report.curves import hit_rate_figure
from offsim.report.style import png

TABLE = pd.DataFrame(
    {
        "slots": [1, 2, 4],
        "working_set_ratio": [2.0, 1.0, 0.5],
        "lru": [0.1, 0.5, 1.0],
        "belady": [0.2, 0.6, 1.0],
    }
)


def test_a_line_for_each_cache_and_one_for_chance() -> None:
    figure = hit_rate_figure(TABLE, "toy", 4)
    lines = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    assert set(lines) == {"lru", "belady: the bound", "by chance"}
    assert list(lines["lru"].get_ydata()) == [10, 50, 100]
    assert list(lines["by chance"].get_ydata()) == [25, 50, 100]
    assert "SIMULATED" in [text.get_text() for text in figure.texts]


def test_the_picture_is_a_function_of_the_table() -> None:
    image = png(hit_rate_figure(TABLE, "toy", 4))
    assert image.startswith(b"\x89PNG")
    assert image == png(hit_rate_figure(TABLE, "toy", 4))
