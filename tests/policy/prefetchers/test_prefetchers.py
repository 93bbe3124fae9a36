"""What each prefetcher names, on small cases that are counted by hand."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.policy.prefetchers import Prefetcher, PrefetchFacts
from offsim.policy.prefetchers.registry import PREFETCHERS
from offsim.trace import DECODE, PREFILL

LAYERS, EXPERTS, TOP_K = 3, 6, 2


def made(name: str, **facts: object) -> Prefetcher:
    return PREFETCHERS[name](PrefetchFacts(LAYERS, EXPERTS, TOP_K, **facts))  # type: ignore[arg-type]


def step(*layers: Sequence[int]) -> list[Lookup]:
    """The lookups of one step; a layer's ids by token, then by slot."""
    tokens = len(layers[0]) // TOP_K
    phase = DECODE if tokens == 1 else PREFILL
    return [Lookup(layer, phase, list(ids), [0.5] * len(ids)) for layer, ids in enumerate(layers)]


def named(prefetcher: Prefetcher, *steps: list[Lookup]) -> list[list[Key]]:
    return [prefetcher.after(lookup) for lookups in steps for lookup in lookups]


def test_gate_orders_by_the_tokens_that_chose_and_then_as_they_come() -> None:
    chosen = [[4, 1, 2, 1, 2, 5], [3, 0, 0, 5, 5, 3]]
    lookup = Lookup(0, PREFILL, [0, 1] * 3, [0.5] * 6, chosen)
    nearest = [(1, 1), (1, 2), (1, 4), (1, 5)]
    assert made("gate").after(lookup) == nearest
    assert made("gate", distance=2).after(lookup) == [*nearest, (2, 3), (2, 0), (2, 5)]
    assert made("gate", distance=9).after(lookup) == made("gate", distance=2).after(lookup)


def test_gate_names_nothing_after_the_last_layer() -> None:
    assert made("gate", distance=2).after(Lookup(2, DECODE, [0, 1], [0.5, 0.5])) == []


def test_popularity_names_the_most_popular_of_the_next_layers() -> None:
    profile = [*step([0, 1], [4, 5], [2, 3]), *step([1, 2], [5, 0], [2, 3]), *step(*[[1, 3]] * 3)]
    # Lookups: layer 0 has 1 three times and 0, 2, 3 once; layer 1 has 5 twice, 0, 1, 3, 4 once;
    # layer 2 has 3 three times, 2 twice, 1 once.
    found = named(made("popularity", profile=profile), step(*[[0, 1]] * 3))
    assert found == [[(1, 5), (1, 0)], [(2, 3), (2, 2)], [(0, 1), (0, 0)]]
    far = named(made("popularity", profile=profile, distance=2), step(*[[0, 1]] * 3))
    assert far[2] == [(0, 1), (0, 0), (1, 5), (1, 0)]


def test_popularity_names_nobody_who_was_never_asked_for() -> None:
    profile = [Lookup(1, DECODE, [4], [1.0])]
    found = named(made("popularity", profile=profile), step(*[[0, 1]] * 3))
    assert found == [[(1, 4)], [], []]


def test_last_token_names_what_the_token_before_took() -> None:
    prefetcher = made("last-token")
    prompt = step([0, 1, 2, 3], [1, 0, 5, 4], [2, 0, 3, 1])
    assert named(prefetcher, prompt) == [[], [], [(0, 2), (0, 3)]]
    token = step([5, 0], [4, 1], [0, 5])
    assert named(prefetcher, token) == [[(1, 5), (1, 4)], [(2, 3), (2, 1)], [(0, 5), (0, 0)]]


def test_last_token_further_ahead() -> None:
    prefetcher = made("last-token", distance=2)
    assert named(prefetcher, step([0, 1], [2, 3], [4, 5])) == [
        [],
        [(0, 0), (0, 1)],
        [(0, 0), (0, 1), (1, 2), (1, 3)],
    ]


def test_transition_names_what_went_with_the_experts_of_the_last_token() -> None:
    prefetcher = made("transition")
    assert named(prefetcher, step([0, 1], [2, 3], [4, 5])) == [[], [], []], "nothing is known yet"
    # Of layer 0's experts, 0 went with 2 and 3, and 4 with nobody yet.
    assert named(prefetcher, step([0, 4], [3, 5], [4, 5]))[:2] == [
        [(1, 2), (1, 3)],
        [(2, 4), (2, 5)],
    ]
    # 0 was there twice: with 3 twice (1), with 2 and 5 once (1/2); 4 once: with 3 and 5 (1).
    # Together 3 has 2, 5 has 3/2, 2 has 1/2.
    assert prefetcher.after(step([4, 0])[0]) == [(1, 3), (1, 5)]


def test_transition_counts_every_token_of_a_prompt() -> None:
    prefetcher = made("transition", distance=2)
    named(prefetcher, step([0, 1, 0, 2, 3, 4], [2, 3, 2, 4, 0, 1], [5, 0, 5, 1, 2, 3]))
    # 0 twice: 2 always, 3 and 4 half; two layers ahead 5 always, 0 and 1 half. 5 was never there.
    assert prefetcher.after(step([0, 5])[0]) == [(1, 2), (1, 3), (2, 5), (2, 0)]
    # The last token alone decides: 3 and 4 went with 0 and 1.
    assert prefetcher.after(step([0, 5, 4, 3])[0])[:2] == [(1, 0), (1, 1)]


def test_transition_goes_by_shares_and_not_by_counts() -> None:
    prefetcher = made("transition")
    named(prefetcher, step([0, 4, 0, 4, 0, 4, 1, 3], [2, 0, 2, 1, 3, 4, 5, 3], [0, 1] * 4))
    # 0 went with 2 in two of three tokens and with 3 in one; 1 with 5 and 3 in its only one.
    assert prefetcher.after(step([0, 1])[0]) == [(1, 3), (1, 5)]


def test_transition_begins_with_the_profile() -> None:
    prefetcher = made("transition", profile=[*step([0, 1], [2, 3], [4, 5]), *step([1, 2])])
    assert named(prefetcher, step([0, 1], [0, 2], [1, 2])) == [
        [(1, 2), (1, 3)],
        [(2, 4), (2, 5)],
        [],
    ]


FUTURE = [[(0, 3), (0, 1)], [(1, 2)], [(2, 5), (2, 4)], [(0, 0), (0, 3)], [(1, 1)], [(2, 0)]]
STEPS = (step([3, 1], [2, 0], [5, 4]), step([0, 3], [1, 2], [0, 1]))


def test_oracle_names_what_will_be_asked_for() -> None:
    assert named(made("oracle", future=FUTURE), *STEPS) == [*FUTURE[1:], []]
    further = named(made("oracle", future=FUTURE, distance=2), *STEPS)
    assert further == [a + b for a, b in zip(FUTURE[1:], [*FUTURE[2:], []], strict=True)] + [[]]


def test_an_oracle_that_sees_more_than_a_step_names_each_once() -> None:
    found = named(made("oracle", future=FUTURE, distance=4), *STEPS)[1]
    assert found == [(2, 5), (2, 4), (0, 0), (0, 3), (1, 1), (2, 0)]
    again = [[(0, 1)], [(1, 1)], [(2, 1)]] * 3
    assert named(made("oracle", future=again, distance=6), *STEPS)[0] == [(1, 1), (2, 1), (0, 1)]


def test_a_noisy_oracle_without_noise_sees_all_in_another_order() -> None:
    found = named(made("noisy-oracle", future=FUTURE), *STEPS)
    assert [set(keys) for keys in found] == [set(keys) for keys in (*FUTURE[1:], [])]


LONG = [[(layer % LAYERS, (layer + e) % EXPERTS) for e in range(TOP_K)] for layer in range(3000)]


@pytest.mark.parametrize(
    ("precision", "recall"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (0.75, 0.8), (0.4, 0.6), (0.3, 0)]
)
def test_a_noisy_oracle_has_the_precision_and_recall_that_are_asked_for(
    precision: float, recall: float
) -> None:
    facts = {"future": LONG, "precision": precision, "recall": recall}
    found = named(made("noisy-oracle", **facts), *[step(*[[0, 1]] * 3)] * 1000)
    right = sum(len(set(keys) & set(true)) for keys, true in zip(found, LONG[1:], strict=False))
    all_named = sum(len(keys) for keys in found)
    assert right / (TOP_K * 2999) == pytest.approx(recall, abs=0.02)
    assert (
        all_named == 0 if recall == 0 else right / all_named == pytest.approx(precision, abs=0.02)
    )
    for keys, true in zip(found, LONG[1:], strict=False):
        assert len(keys) == len(set(keys))
        assert {key[0] for key in keys} <= {true[0][0]}


def test_wrong_ones_are_drawn_evenly_and_are_no_more_than_there_are() -> None:
    future = [[(0, 1), (0, 2)]] * 2000
    prefetcher = made("noisy-oracle", future=future, precision=0.8)
    wrong = [
        key for keys in named(prefetcher, *STEPS * 333) for key in keys if key[1] not in (1, 2)
    ]
    counts = [wrong.count((0, expert)) for expert in (0, 3, 4, 5)]
    assert sum(counts) == pytest.approx(1998 * 2 * 0.25, rel=0.1)
    assert all(count == pytest.approx(sum(counts) / 4, rel=0.25) for count in counts)
    everyone = made("noisy-oracle", future=future, precision=0.01).after(STEPS[0][0])
    assert sorted(everyone) == [(0, expert) for expert in range(EXPERTS)]


def test_noise_is_the_same_from_every_distance_and_by_the_seed() -> None:
    facts = {"future": LONG, "precision": 0.5, "recall": 0.5}
    steps = [step(*[[0, 1]] * 3)] * 100
    near, far = (named(made("noisy-oracle", distance=d, **facts), *steps) for d in (1, 2))
    assert [a + b for a, b in pairwise(near)] == far[:-1]
    assert near == named(made("noisy-oracle", **facts), *steps)
    assert near != named(made("noisy-oracle", seed=1, **facts), *steps)
