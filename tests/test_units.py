import pytest

from offsim import units


def test_sizes() -> None:
    assert (units.KB, units.MB, units.GB, units.MIB) == (10**3, 10**6, 10**9, 2**20)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (98_304, "98.3 KB"),
        (1_500_000, "1.5 MB"),
        (2_000_000_000, "2 GB"),
        (12_345_678_901, "12.3 GB"),
    ],
)
def test_bytes_as_text(count: float, text: str) -> None:
    assert units.show_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ns"),
        (3e-9, "3 ns"),
        (2.5e-6, "2.5 us"),
        (2.61e-3, "2.61 ms"),
        (1.0, "1 s"),
        (61.44, "61.4 s"),
        (-2.61e-3, "-2.61 ms"),
    ],
)
def test_seconds_as_text(seconds: float, text: str) -> None:
    assert units.show_seconds(seconds) == text
