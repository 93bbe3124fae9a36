from collections.abc import Sequence
from threading import Barrier, current_thread

import numpy as np
import pytest

from offsim.calibration.channels import sweep_copies
from offsim.calibration.measure import COPY_SIZES, Bytes, sizes_to

PATIENCE_S = 10.0


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_copies_are_side_by_side_and_all_are_waited_for(channels: int) -> None:
    sizes = sizes_to(5 << 20)
    copied: list[tuple[int, int]] = []
    threads: set[str] = set()
    together = Barrier(channels)

    def copy(parts: Sequence[Bytes]) -> tuple[float, float]:
        place = together.wait(PATIENCE_S)  # comes to an end only where all are there at once
        copied.append((sum(part.nbytes for part in parts), len(parts)))
        threads.add(current_thread().name)
        return 10.0 - place, 20.0 + place

    samples = sweep_copies(copy, np.ones(sizes[-1], np.uint8), sizes, channels, 3)
    assert list(samples) == [*COPY_SIZES, 8 << 20]
    assert all(seconds == [10.0 + 2 * (channels - 1)] * 3 for seconds in samples.values())
    each = [(size, 1 if size in COPY_SIZES else 3) for size in sizes for _ in range(2 * channels)]
    assert copied == each * 3, "each size warms up once before each sample"
    assert len(threads) == channels


def test_what_goes_wrong_in_a_channel_is_told() -> None:
    def copy(parts: Sequence[Bytes]) -> tuple[float, float]:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        sweep_copies(copy, np.ones(4096, np.uint8), [4096], 2, 1)
