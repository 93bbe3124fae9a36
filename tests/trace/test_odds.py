import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.trace.odds import Odds, counts, history, stretched, walk


def even(layers: int = 2, experts: int = 6) -> Odds:
    return Odds(
        np.zeros((layers, experts)),
        np.zeros((2, layers, experts)),
        np.zeros((layers, experts), np.int64),
        np.zeros(layers),
    )


def plain_history(ids: np.ndarray, order: list[int]) -> list[list[int]]:
    """Recencies of one layer, by a list that is searched."""
    found = []
    for top in ids:
        found.append([order.index(expert) for expert in top])
        for expert in top:
            order.remove(expert)
            order.insert(0, expert)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 9))
def test_history_is_the_place_in_an_lru_stack(tokens: int, top_k: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).random((tokens, 2, 6))
    ids = drawn.argsort(axis=2)[:, :, :top_k]
    ranks = history(ids, 6)
    for layer in range(2):
        popular = np.argsort(-counts(ids, 6)[layer]).tolist()
        assert ranks[:, layer].tolist() == plain_history(ids[:, layer], popular)


def test_a_walk_agrees_with_the_history_of_its_ids() -> None:
    ids, ranks = walk(even(), 1, 5, 40, 2, np.random.default_rng(0))
    assert ids.shape == ranks.shape == (1, 45, 2, 2)
    # Both stacks are the same once every expert was taken.
    last_new = max(np.unique(ids[0, :, layer], return_index=True)[1].max() for layer in range(2))
    from_there = last_new // 2 + 1
    np.testing.assert_array_equal(history(ids[0], 6)[from_there:], ranks[0, from_there:])


def test_a_token_never_takes_an_expert_twice() -> None:
    ids, _ = walk(even(experts=3), 4, 0, 50, 3, np.random.default_rng(0))
    assert (np.sort(ids, axis=3) == np.arange(3)).all()


def test_even_odds_take_experts_evenly() -> None:
    ids, ranks = walk(even(), 20, 0, 400, 2, np.random.default_rng(0))
    for values in (ids, ranks):
        shares = counts(values.reshape(-1, 2, 2), 6) / (20 * 400 * 2)
        np.testing.assert_allclose(shares, 1 / 6, atol=0.01)


def test_popularity_is_a_ratio() -> None:
    odds = even()
    odds.popularity[:, 0] = np.log(3)
    ids, _ = walk(odds, 20, 0, 400, 1, np.random.default_rng(0))
    np.testing.assert_allclose((ids == 0).mean((0, 1, 3)), 3 / 8, atol=0.02)


def test_recency_is_of_a_phase() -> None:
    odds = even()
    odds.recency[0, :, 0] = np.log(1e6)  # of a prompt, the last expert stays
    odds.recency[1, :, 0] = np.log(1e-6)  # of decode, it never does
    ids, _ = walk(odds, 3, 20, 20, 1, np.random.default_rng(0))
    same = ids[:, 1:] == ids[:, :-1]
    assert same[:, :19].all()
    assert not same[:, 20:].any()


def test_partners_follow_the_layer_before() -> None:
    odds = even(layers=3)
    odds.partners[1:] = np.arange(6)[::-1]
    odds.gain[1:] = np.log(1e6)
    ids, _ = walk(odds, 2, 0, 30, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(ids[:, :, 1], 5 - ids[:, :, 0])
    np.testing.assert_array_equal(ids[:, :, 2], ids[:, :, 0])


@pytest.mark.parametrize("shape", [(2, 6, 2), (5, 24, 4), (1, 3, 3), (7, 1, 1), (2, 6, 6)])
def test_even_odds_stay_even_in_any_shape(shape: tuple[int, int, int]) -> None:
    wide = stretched(even(), 2, shape, np.random.default_rng(0))
    layers, experts, _ = shape
    assert wide.popularity.shape == wide.partners.shape == (layers, experts)
    assert wide.recency.shape == (2, layers, experts)
    assert not wide.popularity.any()
    assert not wide.recency.any()
    assert not wide.gain.any()
    assert (np.sort(wide.partners, axis=1) == np.arange(experts)).all()


def test_popularity_is_stretched_by_quantile() -> None:
    odds = even()
    odds.popularity[:] = np.linspace(1, -1, 6)
    wide = stretched(odds, 2, (2, 12, 2), np.random.default_rng(0))
    ordered = -np.sort(-wide.popularity, axis=1)
    np.testing.assert_allclose(ordered[0], ordered[1])
    assert ordered[0, 0] == 1
    assert ordered[0].mean() == pytest.approx(0, abs=1e-12)
    assert (wide.popularity[0] != wide.popularity[1]).any(), "each layer has ids of its own"
