import pytest

from offsim.calibration.measure import COPY_SIZES
from offsim.errors import InputError
from offsim.runtime.devices import CPU, Cuda
from offsim.study.transfers import sweep_device
from tests.runtime.devices.fake_cuda import FakeCuda, FakeCupy, Quick


def cuda(most_pinned: int | None = None) -> tuple[Cuda, FakeCuda, FakeCupy]:
    fake = FakeCuda()
    cupy = FakeCupy(fake, Quick(), most_pinned)
    return Cuda(fake, cupy, "cpu"), fake, cupy


def test_the_cpu_has_one_link_and_nothing_beside_it() -> None:
    copied = sweep_device(CPU, 2, 1)
    assert list(copied.link) == list(COPY_SIZES)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in copied.link.values())
    assert copied.others == []


def test_a_device_copies_from_pinned_and_from_pageable_memory_side_by_side() -> None:
    device, fake, cupy = cuda()
    copied = sweep_device(device, 2, 5 << 20)
    sizes = [*COPY_SIZES, 8 << 20]
    assert list(copied.link) == sizes
    found = [(one.memory, one.channels) for one in copied.others]
    assert found == [
        *[("pinned", channels) for channels in (2, 4)],
        *[("pageable", channels) for channels in (1, 2, 4)],
    ]
    for one in copied.others:
        assert [point.size for point in one.copies] == sizes
        for point in one.copies:
            assert point.seconds.label == "MEASURED"
            assert point.seconds.samples == 2
            assert 0 < point.seconds.p10 <= point.seconds.value
    assert cupy.pinned == [8 << 20], "one piece of pinned memory, and pageable memory is not pinned"
    channels = [used for name, used in fake.used.items() if name.startswith("offsim channel")]
    assert max(map(len, channels)) >= 1
    assert len(set().union(*channels)) == 2 * (1 + 2 + 4), "a stream for each copy side by side"


def test_memory_that_cannot_be_pinned_is_refused() -> None:
    with pytest.raises(InputError, match=r"host memory of 4\.19 MB cannot be pinned"):
        sweep_device(cuda(1 << 20)[0], 1, 1)
