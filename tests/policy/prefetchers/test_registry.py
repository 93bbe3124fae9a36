import pytest

from offsim.errors import InputError
from offsim.policy.prefetchers import Prefetcher
from offsim.policy.prefetchers.registry import PREFETCHERS, lookahead, prefetcher_named


def test_names() -> None:
    for name, prefetcher in PREFETCHERS.items():
        assert prefetcher.name == name
        assert issubclass(prefetcher, Prefetcher)
        assert prefetcher_named(name) is prefetcher
    assert [n for n, kind in PREFETCHERS.items() if kind.oracle] == ["oracle", "noisy-oracle"]
    assert [n for n, kind in PREFETCHERS.items() if kind.profiled] == ["popularity"]
    assert [n for n, kind in PREFETCHERS.items() if kind.gated] == ["gate"]


def test_none_is_none() -> None:
    assert prefetcher_named("none") is None


def test_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match="no prefetcher is called 'crystal'; there are none, gate"):
        prefetcher_named("crystal")


@pytest.mark.parametrize(("name", "layers"), [("gate", 2), ("transition", 0), ("none", 0)])
def test_gates_are_asked_as_far_ahead_as_one_prefetcher_looks(name: str, layers: int) -> None:
    assert lookahead(name, 2) == layers
