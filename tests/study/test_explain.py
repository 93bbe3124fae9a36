import math

import pytest

from offsim.errors import InputError
from offsim.study.answers import answers
from offsim.study.explain import Change, Split, explain
from tests.builders import TOY, codec_figures, trace_of

from .cases import ALTERNATING, case

ROUND = trace_of([[[step % 3]] * 3 for step in range(7)])
"""Two slots of LRU never hit; Belady does."""


def test_every_part_of_the_stall_by_hand() -> None:
    found = explain(case())
    split = found.split
    assert split.compute_s == pytest.approx(6.0)
    assert split.compulsory_s == pytest.approx(0.75)  # 3 loads in the first of 4 tokens
    assert split.capacity_s == pytest.approx(2.25)
    assert split.policy_s == pytest.approx(0.0)
    assert split.total_s == found.policy.tpot_s
    assert found.label == "SIMULATED"


def test_what_belady_avoids_is_the_policys_fault() -> None:
    found = explain(case(ROUND, slots=2))
    assert found.policy.hit_rate_decode == 0
    assert found.belady.hit_rate_decode == pytest.approx(1 / 3)
    assert found.split.policy_s == pytest.approx(1.0)  # of three loads a token, Belady saves one
    assert found.split.capacity_s == pytest.approx(1.0)
    assert found.split.compulsory_s == pytest.approx(1.0)
    assert found.split.total_s == found.policy.tpot_s


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_an_infinite_cache_has_compulsory_stall_alone(scope: str) -> None:
    found = explain(case(slots=4, scope=scope))
    assert found.split.compulsory_s == pytest.approx(0.75)
    assert (found.split.capacity_s, found.split.policy_s) == (0.0, 0.0)
    assert found.changes[0].what == "nothing: every expert has a slot"
    assert found.changes[0].saved_s == 0


def test_an_infinite_cache_of_two_tiers_has_room_for_all_in_both() -> None:
    cuszp = codec_figures("cuszp", 0.5, blob_bytes=3, decode_s=0.5)  # of 6 B
    two = {"codec": "cuszp", "bound": 0.5, "keep": "both"}
    found = explain(case(ROUND, cuszp, slots=3, **two))
    assert found.policy.again_rate > 0
    assert found.infinite.again_rate == found.resident.again_rate == 0
    assert found.infinite.hit_rate == 4 / 7
    assert found.changes[0].what.startswith("+5 slots a layer, all that there are")
    for slots, share, what in ((8, 0.5, "nothing"), (8, 0.25, "+8"), (4, 0.0, "nothing")):
        full = case(ROUND, cuszp, slots=slots, decoded_share=share, **two)
        assert explain(full).changes[0].what.startswith(what)


def test_the_next_gigabyte_a_second_of_a_link_bound_toy() -> None:
    large = codec_figures(blob_bytes=20 * 10**9)
    change = explain(case(ALTERNATING, large, link=20e9)).changes[1]
    assert change.what == "+1 GB/s (20 to 21 GB/s)"
    assert change.before_s == pytest.approx(9.0)
    assert change.saved_s == pytest.approx(3 * (1 - 20 / 21))


@pytest.mark.parametrize("link", [1000.0, None])
def test_a_slow_link_is_made_a_tenth_faster(link: float | None) -> None:
    change = explain(case(link=link)).changes[1]
    if link is None:
        assert change.what == "+1 GB/s (1000 to 1001 GB/s)"
    else:
        assert change.what == "+10 % (0.001 to 0.0011 MB/s)"
        assert change.saved_s == pytest.approx(3 * (1 - 1 / 1.1))


def test_the_next_gibibyte_is_whole_slots() -> None:
    expected = {
        2**26: "+3 slots a layer, all that there are (0.562",
        2**28: "+1 slot a layer (0.75",
    }
    expected[2**30] = "+1 slot a layer (3"
    for nbytes, what in expected.items():
        raw = codec_figures(blob_bytes=nbytes)
        model = {"stored_bytes": nbytes}
        change = explain(case(ALTERNATING, raw, link=float(nbytes), model=model)).changes[0]
        assert change.what == f"{what} GiB in all)"
        assert change.tpot_s == pytest.approx(6.75)  # two slots hold all that is asked for


def test_one_bit_less_is_shorter_on_the_link() -> None:
    raw = codec_figures(blob_bytes=10_000)
    found = explain(case(ALTERNATING, raw, model={"hidden": 100, "width": 80}))
    change = found.changes[2]
    assert change.what == "1 bit a weight less (3.33 to 2.33)"
    assert change.saved_s == pytest.approx(9.0)
    assert change.saved == pytest.approx(9 / 36)
    said = "\n".join(answers(found))
    assert f"{change.what}, decoded in the same time, makes a token 9 s (25.0%) shorter." in said


def test_bits_do_nothing_for_a_host_codec() -> None:
    sz3 = codec_figures("sz3", 0.5, decode_s=1.0)
    found = explain(case(ALTERNATING, sz3, codec="sz3", bound=0.5))
    assert found.changes[2].saved_s == 0
    assert "the host decodes" in found.changes[2].what


def test_a_perfect_oracle_hides_loads_behind_compute() -> None:
    ahead = explain(case(slots=2, link=2000.0, trace=ROUND)).foresight
    assert ahead.hypothetical
    assert ahead.prefetcher == "oracle"
    assert ahead.precision == 1.0
    assert ahead.without_s == pytest.approx(7.5)
    assert 0 < ahead.saved_s <= 1.5


def test_a_policy_with_a_prefetcher_is_held_against_none() -> None:
    found = explain(case(ROUND, slots=2, prefetch="last-token"))
    ahead = found.foresight
    assert not ahead.hypothetical
    assert ahead.with_s == found.policy.tpot_s
    assert ahead.without_s == pytest.approx(9.0)
    assert "Prefetch: last-token" in "\n".join(answers(found))


def test_a_pool_below_one_cycle_warns() -> None:
    found = explain(case(TOY, scope="global"))
    assert found.policy.hit_rate_decode == 0
    assert "below the 6 that one token asks for" in answers(found)[-1]
    assert "The cliff ends at 6 experts in all." in answers(found)[-1]
    above = explain(case(TOY, scope="global", slots=4))
    assert not any(said.startswith("Warning") for said in answers(above))


def test_the_bottleneck_is_named_with_its_numbers() -> None:
    slow = explain(case(link=100.0))
    said = answers(slow)[1]
    assert said.startswith("Bottleneck: link. A decode step takes 36 s, of which 30 s (83%) waits")
    assert "compute 17%, link 83%" in said
    assert answers(explain(case()))[1].startswith("Bottleneck: compute.")


def test_a_policy_may_be_faster_than_belady() -> None:
    split = Split(compute_s=1.0, compulsory_s=0.5, capacity_s=2.0, policy_s=-0.5)
    assert split.total_s == 3.0
    assert Change("link", "x", 2.0, 3.0).saved == -0.5


def test_it_tells_how_far_it_is() -> None:
    seen: list[float] = []
    explain(case(), lambda what, share: seen.append(share))
    assert seen == sorted(seen)
    assert seen[0] == 0


def test_what_cannot_be_explained() -> None:
    with pytest.raises(InputError, match="belady is the bound"):
        explain(case(cache="belady"))
    with pytest.raises(InputError, match="no request of the trace has two output tokens"):
        explain(case(trace_of([[[0]] * 3])))
    with pytest.raises(InputError, match="needs a profile"):
        explain(case(cache="pinned"))


def test_no_slots_at_all() -> None:
    found = explain(case(slots=0))
    assert found.split.total_s == pytest.approx(9.0)
    assert not math.isnan(found.split.policy_s)
