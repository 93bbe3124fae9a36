import numpy as np

from offsim.calibration.measure import COPY_SIZES, Bytes, measure_link


def sizes_of(largest: int | None) -> tuple[list[int], set[tuple[int, int]]]:
    """Sizes of the table, and the bytes and number of arrays of what was copied."""
    copied: set[tuple[int, int]] = set()

    def copy(parts: list[Bytes]) -> list[Bytes]:
        copied.add((sum(part.nbytes for part in parts), len(parts)))
        assert all(part.dtype == np.uint8 for part in parts)
        return [part.copy() for part in parts]

    more = () if largest is None else (largest,)
    figures = measure_link(copy, 1, [0.0], *more)
    return [point.size for point in figures.copies], copied


def test_the_sweep_of_the_link_ends_at_4_mib() -> None:
    for largest in (None, 1, COPY_SIZES[-1]):
        sizes, copied = sizes_of(largest)
        assert sizes == list(COPY_SIZES)
        assert copied == {(size, 1) for size in sizes}


def test_the_sweep_reaches_an_expert_that_is_larger() -> None:
    sizes, copied = sizes_of(9 << 20)
    assert sizes == [*COPY_SIZES, 8 << 20, 16 << 20]
    assert copied == {(size, 1 if size in COPY_SIZES else 3) for size in sizes}
