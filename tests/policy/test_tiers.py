from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.policy.evictions import Key
from offsim.policy.tiers import HostMemory

EXPERTS: list[Key] = [(layer, expert) for layer in range(2) for expert in range(3)]


def memory(capacity: int, **sizes: int) -> HostMemory:
    """Of six experts of 10 bytes, but for those of the first layer named `e0` and so on."""
    return HostMemory(capacity, EXPERTS, lambda key: sizes.get(f"e{key[1]}", 10))


def held(host: HostMemory) -> list[Key]:
    return [key for key in EXPERTS if key in host]


def test_it_starts_with_the_first_experts_that_fit() -> None:
    assert held(memory(45)) == EXPERTS[:4]
    assert memory(45).used == 40
    assert held(memory(60)) == held(memory(1000)) == EXPERTS
    assert held(memory(9)) == []
    assert held(memory(25, e1=20)) == [(0, 0)], "the first that does not fit ends it"


def test_the_one_that_was_not_loaded_for_longest_leaves() -> None:
    host = memory(30)
    assert not host.load((0, 0)), "it is there, and young again"
    assert host.load((1, 0))
    assert held(host) == [(0, 0), (0, 2), (1, 0)]
    assert host.load((0, 1))
    assert held(host) == [(0, 0), (0, 1), (1, 0)]


def test_as_many_leave_as_must() -> None:
    host = memory(30, e2=25)
    assert held(host) == [(0, 0), (0, 1)]
    assert host.load((0, 2))
    assert (held(host), host.used) == ([(0, 2)], 25)


def test_what_is_larger_than_all_of_it_passes_through() -> None:
    host = memory(20, e2=21)
    assert [host.load((0, 2)) for _ in range(2)] == [True, True]
    assert held(host) == [(0, 0), (0, 1)]
    nothing = memory(0)
    assert [nothing.load((0, 0)) for _ in range(2)] == [True, True]
    assert nothing.used == 0


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.integers(0, 70),
    st.lists(st.integers(0, 25), min_size=6, max_size=6),
    st.lists(st.sampled_from(EXPERTS), max_size=40),
)
def test_it_is_never_above_its_capacity_and_never_reads_what_it_holds(
    capacity: int, sizes: list[int], loads: list[Key]
) -> None:
    size = dict(zip(EXPERTS, sizes, strict=True))
    host = HostMemory(capacity, EXPERTS, size.__getitem__)
    for key in loads:
        there, before = key in host, set(held(host))
        assert host.load(key) == (not there)
        assert set(host.left) == before - set(held(host))
        assert host.used == sum(size[one] for one in held(host)) <= capacity
        assert (key in host) == (size[key] <= capacity)
