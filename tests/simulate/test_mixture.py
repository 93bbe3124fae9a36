import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.schema import Calibration, CodecFigures
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bound_kinds import by_hotness, by_layer, by_matrix, uniform
from offsim.policy.bounds import Bounds, Rule, bounds_of
from offsim.policy.policy import Policy
from offsim.record import metrics_of
from offsim.simulate import simulate
from offsim.simulate.mixture import stored
from tests.builders import TOY, calibration, codec_figures

FINE, WIDE, WIDEST = Bound(0.125), Bound(0.25), Bound(0.5)
COLD = Bounds(default=WIDE, rules=(Rule(bound=FINE, experts=(1, 3)),))


def parted(codec: str, bound: float, parts: tuple[int, int, int], decode_s: float) -> CodecFigures:
    """Figures with the same three matrices in every expert."""
    figures = codec_figures(codec, bound, blob_bytes=sum(parts), decode_s=decode_s)
    return figures.model_copy(update={"matrix_bytes": [[list(parts)] * 4] * 3})


def measured(codec: str = "cuszp") -> Calibration:
    return calibration(
        codec_figures(),
        parted(codec, 0.125, (300, 400, 500), 3.0),
        parted(codec, 0.25, (200, 210, 220), 2.0),
        parted(codec, 0.5, (10, 20, 30), 1.0),
    )


def test_one_bound_is_the_figures_of_the_calibration() -> None:
    figures = measured()
    plain = stored(figures, Policy(codec="cuszp", bound=0.25))
    table = stored(figures, Policy(codec="cuszp", bounds=uniform(WIDE)))
    assert plain.figures is table.figures is figures.codecs[2]
    assert plain.decode_s.tolist() == table.decode_s.tolist() == [[2.0] * 4] * 3
    assert plain.unpack_s is None


def test_bounds_by_layer_by_hand() -> None:
    known = stored(measured(), Policy(codec="cuszp", bounds=by_layer([FINE, WIDE, FINE])))
    assert known.figures.blob_bytes == [[1200] * 4, [630] * 4, [1200] * 4]
    assert known.decode_s.tolist() == [[3.0] * 4, [2.0] * 4, [3.0] * 4]
    assert known.figures.decode_s.value == pytest.approx(8 / 3)
    assert known.figures.largest_error == known.figures.bound == 0.25
    assert known.figures.ratio == pytest.approx(1000 / 1010)  # a mean blob is 1010 bytes of 1000


def test_bounds_by_expert_by_hand() -> None:
    known = stored(measured(), Policy(codec="cuszp", bounds=COLD))
    assert known.figures.blob_bytes == [[630, 1200, 630, 1200]] * 3
    assert known.decode_s.tolist() == [[2.0, 3.0, 2.0, 3.0]] * 3


def test_bounds_by_matrix_by_hand() -> None:
    known = stored(measured(), Policy(codec="cuszp", bounds=by_matrix(FINE, WIDE, WIDEST)))
    assert known.figures.blob_bytes == [[300 + 210 + 30] * 4] * 3
    assert known.decode_s.tolist() == [[2.0] * 4] * 3  # (3 + 2 + 1) / 3


def test_codecs_by_layer_by_hand() -> None:
    made = measured()
    other = parted("rtn-int4", 0.0, (1, 2, 3), 5.0)
    made = made.model_copy(update={"codecs": [*made.codecs, other]})
    table = Bounds(
        default=WIDE,
        rules=(Rule(codec="rtn-int4", layers=(1,)), Rule(bound=FINE, experts=(0,), layers=(1,))),
    )
    known = stored(made, Policy(codec="cuszp", bounds=table))
    assert known.figures.blob_bytes == [[630] * 4, [1200, 6, 6, 6], [630] * 4]
    assert known.decode_s.tolist() == [[2.0] * 4, [3.0, 5.0, 5.0, 5.0], [2.0] * 4]
    with pytest.raises(InputError, match="rtn-int4"):
        stored(measured(), Policy(codec="cuszp", bounds=table))


def test_slowdowns_weigh_by_the_time_of_decoding() -> None:
    slow, fast = (
        codec_figures("cuszp", bound, decode_s=s, compute_slowdown=x, decode_slowdown=2 * x)
        for bound, s, x in ((0.125, 3.0, 2.0), (0.25, 1.0, 1.0))
    )
    table = by_hotness({}, 0.5, FINE, WIDE, 3, 4)
    known = stored(calibration(slow, fast), Policy(codec="cuszp", bounds=table)).figures
    assert known.compute_slowdown == pytest.approx((3 * 2 + 1 * 1) / 4)
    assert known.decode_slowdown == pytest.approx((3 * 4 + 1 * 2) / 4)
    still = [one.model_copy(update={"decode_s": codec_figures().decode_s}) for one in (slow, fast)]
    known = stored(calibration(*still), Policy(codec="cuszp", bounds=table)).figures
    assert known.compute_slowdown == 1.5


def test_the_host_decodes_each_expert_at_its_bound_and_the_link_has_stored_bytes() -> None:
    policy = Policy(codec="sz3", bounds=COLD, slots=0)
    record = simulate(TOY, policy, measured("sz3"), 6.0)
    loads = [load for step in record.steps for load in step.loads]
    times = {load.expert: load.spans[0].end - load.spans[0].start for load in loads}
    assert times == pytest.approx({0: 2.0, 1: 3.0, 2: 2.0, 3: 3.0})
    assert {load.link_bytes for load in loads} == {6}  # 3 values of 2 bytes


def test_each_expert_is_as_long_on_the_link_as_its_bytes() -> None:
    policy = Policy(codec="cuszp", bounds=COLD, slots=2)
    record = simulate(TOY, policy, measured(), 100.0)
    loads = [load for step in record.steps for load in step.loads]
    sizes = {load.expert: load.link_bytes for load in loads}
    assert sizes == {0: 630, 1: 1200, 2: 630, 3: 1200}
    for load in loads:
        (link,) = (span for span in load.spans if span.stage == "link")
        assert link.end - link.start == pytest.approx(sizes[load.expert] / 100)


@pytest.mark.parametrize("codec", ["cuszp", "sz3"])
@pytest.mark.parametrize("noise", [None, 3])
def test_a_uniform_table_is_the_bound_to_the_last_bit(codec: str, noise: int | None) -> None:
    rules = (Rule(bound=WIDE, layers=(0,)), Rule(bound=WIDE, matrices=("up",)))
    alike = Bounds(default=WIDE, rules=rules)
    one, other, third = (
        simulate(TOY, policy, measured(codec), 100.0, noise_seed=noise)
        for policy in (
            Policy(codec=codec, bound=0.25, slots=2),
            Policy(codec=codec, bounds=uniform(WIDE), slots=2),
            Policy(codec=codec, bounds=alike, slots=2),
        )
    )
    assert one == other == third


TABLES = st.builds(
    Bounds,
    default=st.sampled_from([FINE, WIDE, WIDEST]),
    rules=st.lists(
        st.builds(
            Rule,
            bound=st.sampled_from([FINE, WIDE, WIDEST]),
            layers=st.none() | st.lists(st.integers(0, 2), max_size=2).map(tuple),
            experts=st.none() | st.lists(st.integers(0, 3), max_size=2).map(tuple),
            matrices=st.none() | st.lists(st.sampled_from(["gate", "up", "down"])).map(tuple),
        ),
        max_size=4,
    ).map(tuple),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    TABLES, st.sampled_from(["cuszp", "sz3"]), st.integers(0, 4), st.sampled_from(["lru", "fifo"])
)
def test_both_engines_agree_and_bytes_are_those_of_the_matrices(
    table: Bounds, codec: str, slots: int, cache: str
) -> None:
    figures = measured(codec)
    policy = Policy(codec=codec, bounds=table, slots=slots, cache=cache)
    fast, slow = (simulate(TOY, policy, figures, 50.0, engine=e) for e in ("fast", "simpy"))
    assert fast == slow
    known = stored(figures, policy)
    for layer, expert in np.ndindex(3, 4):
        held = [
            figures.codec(codec, bound.value)
            for bound in bounds_of(table.of(layer, expert))
            if bound is not None
        ]
        parts = [one.matrix_bytes for one in held]
        expected = sum(part[layer][expert][m] for m, part in enumerate(parts) if part)
        assert known.figures.blob_bytes[layer][expert] == expected
        mean = sum(one.decode_s.value for one in held) / 3
        assert known.decode_s[layer, expert] == pytest.approx(mean)
    least, most = (f([c.decode_s.value for c in figures.codecs[1:]]) for f in (min, max))
    assert least <= known.figures.decode_s.value <= most
    assert metrics_of(fast).lookups == metrics_of(slow).lookups


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (by_layer([FINE, Bound(0.75), FINE]), "cuszp at bound 0.75 is not in the calibration"),
        (by_layer([FINE, Bound(0.1, "sigma")]), "bound sigma:0.1 is another number for each"),
        (by_layer([FINE, FINE, WIDE, WIDE]), "about layer 3, and the model has layers 0 to 2"),
        (Bounds(default=FINE, rules=(Rule(bound=WIDE, experts=(4,)),)), "experts 0 to 3"),
    ],
)
def test_what_the_calibration_does_not_have_is_refused(table: Bounds, says: str) -> None:
    with pytest.raises(InputError, match=says):
        simulate(TOY, Policy(codec="cuszp", bounds=table), measured())


def test_a_bound_that_no_matrix_has_need_not_be_calibrated() -> None:
    rules = (Rule(bound=Bound(0.75), layers=(1,)), Rule(bound=FINE, layers=(0, 1, 2)))
    table = Bounds(default=Bound(0.75), rules=rules)
    assert stored(measured(), Policy(codec="cuszp", bounds=table)).figures.bound == 0.125


def test_bytes_of_single_matrices_are_needed_inside_an_expert_only() -> None:
    figures = calibration(codec_figures("cuszp", 0.125), codec_figures("cuszp", 0.25))
    simulate(TOY, Policy(codec="cuszp", bounds=COLD), figures)
    table = by_matrix(FINE, WIDE, WIDE)
    with pytest.raises(InputError, match=r"single matrices under cuszp 0\.125; calibrate again"):
        simulate(TOY, Policy(codec="cuszp", bounds=table), figures)


def test_one_codec_decodes_in_one_place() -> None:
    host = codec_figures("sz3", 0.25).model_copy(update={"codec": "cuszp"})
    figures = calibration(codec_figures("cuszp", 0.125), host)
    with pytest.raises(
        InputError, match="cuszp on the host, cuszp on the device; take codecs that are"
    ):
        simulate(TOY, Policy(codec="cuszp", bounds=COLD), figures)
