import io
from collections.abc import Callable
from itertools import combinations, pairwise

import matplotlib.image as images
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from offsim.policy.cache import Decision
from offsim.policy.policy import Policy
from offsim.record import Load, RunRecord, Span, StepRecord, Wait
from offsim.record.events import SELDOM
from offsim.report.style import PART_COLOURS, png
from offsim.report.timeline import HIT, MISS, lookups, stage_colour, timeline_figure
from offsim.simulate import simulate
from tests.builders import calibration, codec_figures, trace_of
from tests.report.conftest import made_trace


def by_hand() -> RunRecord:
    """One step of two layers: the first finds one expert of two, the second finds both."""
    load = Load(0, 17, 100, 10.001)
    load.spans = [Span("link", 10.002, 10.004), Span("device decode", 10.004, 10.005)]
    decisions = [Decision(0, (3,), (17,), ((),)), Decision(1, (4, 2), ())]
    wait = Wait(10.003, 10.0055, load)
    return RunRecord("MEASURED", [StepRecord(0, 1, 10.0, 10.0075, decisions, [load], [wait])])


def simulated(codec: str = "cuszp", tokens: int = 24) -> RunRecord:
    bound = 0.1 if codec != "raw" else 0.0
    figures = calibration(
        codec_figures(codec, bound, decode_s=0.2), dense_s=0.5, expert_s=0.1, handover_s=0.01
    )
    policy = Policy(codec=codec, bound=bound, slots=2)
    return simulate(made_trace(tokens=tokens), policy, figures, 2000.0)


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def areas(figure: Figure) -> dict[str, float]:
    """Width times height of what is drawn in each colour, ms: a row has a height of one."""
    found: dict[str, float] = {}
    for axes in figure.axes:
        for bars in axes.collections:
            assert isinstance(bars, PolyCollection)
            faces = bars.get_facecolor()
            for path, face in zip(bars.get_paths(), faces, strict=True):
                size = np.ptp(path.vertices, axis=0)
                if face[3]:  # boxes of layers have an outline only
                    name = to_hex(face)
                    found[name] = found.get(name, 0.0) + float(size[0] * size[1]) / 0.84
    return found


def test_bars_by_hand() -> None:
    found = areas(timeline_figure(by_hand()))
    expected = {
        # Layer 0 from 1 to 6.5 ms, half of it a miss; layer 1 from there to the end, all hits.
        HIT: 5.5 / 2 + 1.0,
        MISS: 5.5 / 2,
        PART_COLOURS["compute"]: 7.5,
        # What was served, and what compute waited for it.
        PART_COLOURS["link"]: 2.0 + 1.0,
        PART_COLOURS["device decode"]: 1.0 + 1.0,
        PART_COLOURS["hand-over"]: 0.5,
    }
    assert found == pytest.approx(expected)


def test_lookups_by_hand() -> None:
    assert lookups(by_hand().steps[0]) == pytest.approx([10.001, 10.0065, 10.0075])


def test_lookups_between_known_ones_are_even() -> None:
    hit, load = Decision(0, (1,), ()), Load(2, 9, 1, 3.0)
    decisions = [hit, Decision(1, (1,), ()), Decision(2, (), (9,), ((),)), Decision(3, (1,), ())]
    step = StepRecord(0, 1, 0.0, 8.0, decisions, [load], [Wait(3.5, 4.0, load)])
    assert lookups(step) == pytest.approx([1.0, 2.0, 3.0, 6.0, 8.0])
    assert lookups(StepRecord(0, 1, 0.0, 8.0)) == [8.0]
    assert lookups(StepRecord(0, 1, 0.0, 8.0, decisions[:1])) == [4.0, 8.0]


def test_lookups_beside_prefetches() -> None:
    """Layer 1 finds one that is late, layer 2 has only fetched ahead, layer 3 missed one."""
    late, later = Load(1, 5, 1, 1.0, ahead=True), Load(3, 6, 1, 5.0, ahead=True)
    missed = Load(3, 7, 1, 6.0)
    decisions = [
        Decision(0, (1,), (), fetched=((1, 5),), displaced=((),)),
        Decision(1, (5,), ()),
        Decision(2, (1,), (), fetched=((3, 6),), displaced=((),)),
        Decision(3, (6,), (7,), ((),)),
    ]
    waits = [Wait(2.0, 3.0, late), Wait(6.5, 7.0, missed)]
    step = StepRecord(0, 1, 0.0, 8.0, decisions, [late, later, missed], waits, late=1)
    assert lookups(step) == pytest.approx([0.5, 2.0, 4.0, 6.0, 8.0])
    found = areas(timeline_figure(RunRecord("SIMULATED", [step])))
    assert found[MISS] == pytest.approx(1e3)


def test_what_was_fetched_ahead_is_pale() -> None:
    record = by_hand()
    figure = timeline_figure(record)
    (legend,) = figure.legends
    plain = [text.get_text() for text in legend.get_texts()]
    assert not any("ahead" in name for name in plain)
    load = record.steps[0].loads[0]
    load.ahead, record.steps[0].late = True, 1
    ahead = timeline_figure(record)
    (legend,) = ahead.legends
    assert [text.get_text() for text in legend.get_texts()][-1] == "pale: fetched ahead"
    assert "0 decode: hits 2, late 1, misses 1" in {text.get_text() for text in texts(ahead)}
    before, after = areas(figure), areas(ahead)
    for stage, seconds in (("link", 2.0), ("device decode", 1.0)):
        pale = stage_colour(stage, ahead=True)
        assert pale not in before
        assert after[pale] == pytest.approx(seconds)
        assert after[PART_COLOURS[stage]] == pytest.approx(1.0), "compute waits in the full colour"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 4),
    st.floats(10.0, 1e4),
    st.sampled_from(["none", "last-token", "oracle"]),
)
def test_lookups_of_simulated_steps_lie_in_their_order(
    seed: int, slots: int, pace: float, prefetch: str
) -> None:
    rng = np.random.default_rng(seed)
    ids = [[rng.permutation(4)[:2].tolist() for _ in range(3)] for _ in range(5)]
    policy = Policy(slots=slots, prefetch=prefetch, distance=2)
    record = simulate(trace_of(ids), policy, calibration(), pace)
    for step in record.steps:
        times = lookups(step)
        assert len(times) == len(step.decisions) + 1
        assert all(a <= b for a, b in pairwise([step.start, *times]))
        assert times[-1] == pytest.approx(step.end)
        demands = [load for load in step.loads if not load.ahead]
        asked = {load.layer: load.submitted for load in reversed(demands)}
        assert all(times[layer] == pytest.approx(at) for layer, at in asked.items())


@pytest.mark.parametrize("codec", ["raw", "cuszp", "sz3"])
def test_figure(codec: str) -> None:
    record = simulated(codec)
    figure = timeline_figure(record, (0, 5), "the policy")
    image = png(figure)
    assert png(timeline_figure(record, (0, 5), "the policy")) == image
    pixels = np.asarray(images.imread(io.BytesIO(image), format="png"))
    assert pixels.shape[1] == 1760
    assert len(np.unique(pixels[..., :3].sum(axis=2))) > 10
    said = {text.get_text() for text in texts(figure)}
    assert {"SIMULATED", "layers", "compute", "link"} <= said
    assert ("host decode" in said) == (codec == "sz3")
    assert figure.get_suptitle().startswith("the policy: waiting is ")
    assert min(text.get_fontsize() for text in texts(figure)) >= 9


def test_parts_of_the_title_are_those_of_the_bars() -> None:
    record = simulated("sz3")
    figure = timeline_figure(record, (2, 9))
    found, shown = areas(figure), record.steps[2:10]
    whole = 1e3 * sum(step.end - step.start for step in shown)
    assert found[PART_COLOURS["compute"]] == pytest.approx(whole)
    waits = 1e3 * sum(wait.end - wait.start for step in shown for wait in step.waits)
    spans = 1e3 * sum(s.end - s.start for st in shown for ld in st.loads for s in ld.spans)
    stages = ("host decode", "link", "device decode", "hand-over")
    drawn = sum(found.get(PART_COLOURS[stage], 0.0) for stage in stages)
    assert drawn == pytest.approx(waits + spans)
    assert f"{100 * waits / whole:.1f}\u00a0% of 8 steps" in figure.get_suptitle()


def test_steps_are_named_above_them() -> None:
    record = simulated("raw")
    said = " ".join(text.get_text() for text in texts(timeline_figure(record, (0, 3))))
    assert "0 prefill: hits 0, misses " in said
    assert "ms since the start of step 0" in said
    later = " ".join(text.get_text() for text in texts(timeline_figure(record, (3, 4))))
    assert "3 decode: hits " in later
    assert "0 prefill" not in later


def many_experts() -> RunRecord:
    """Layers and experts of two digits, and steps of which most are short."""
    shape = {"layers": 12, "experts": 40}
    figures = calibration(codec_figures(**shape), **shape, dense_s=0.1, expert_s=0.1)
    trace = made_trace(**shape)
    return simulate(trace, Policy(slots=20), figures, 4000.0)


def prefetching() -> RunRecord:
    """Steps that wait for some of what was fetched ahead, through all stages."""
    figures = calibration(codec_figures("sz3", 0.1, decode_s=0.2), dense_s=0.5, expert_s=0.1)
    policy = Policy(codec="sz3", bound=0.1, slots=2, prefetch="oracle", distance=2)
    return simulate(made_trace(tokens=24), policy, figures, 2000.0)


def many_lengths() -> RunRecord:
    """Steps from very short to long ones."""
    ends = np.cumsum(np.linspace(0.1, 4.0, 60)).tolist()
    return RunRecord("SIMULATED", [StepRecord(0, 1, *times) for times in pairwise(ends)])


@pytest.mark.parametrize("made", [simulated, many_experts, many_lengths, prefetching])
def test_nothing_is_cut_and_no_names_overlap(made: Callable[[], RunRecord]) -> None:
    figure = timeline_figure(made(), (0, 59), "cuszp 0.1, lru 2")
    apart = 3  # px on each side of a text
    inside = figure.bbox.padded(1)
    heads = [text.get_window_extent() for text in figure.texts]
    (legend,) = figure.legends
    named = legend.get_window_extent()
    assert inside.x0 <= named.x0 < named.x1 <= inside.x1
    assert not any(one.overlaps(other) for one, other in combinations(heads, 2))
    for axes in figure.axes:
        written = [text.get_window_extent() for text in axes.texts]
        assert not any(one.overlaps(other) for one, other in combinations(written, 2))
        names = [text for text in axes.texts if text.get_position()[1] < 0]
        wide = [text.get_window_extent().padded(apart, 0) for text in names]
        assert not any(one.overlaps(other) for one, other in combinations(wide, 2))
        for box in (*written, *heads):
            assert inside.x0 <= box.x0 < box.x1 <= inside.x1
            assert inside.y0 <= box.y0 < box.y1 <= inside.y1


def test_many_steps_and_one() -> None:
    record = simulated("raw", tokens=60)
    assert len(timeline_figure(record, (0, 400)).axes) == 8
    assert len(timeline_figure(record, (7, 7)).axes) == 1


def test_a_run_without_a_wait() -> None:
    record = RunRecord("ESTIMATED", [StepRecord(0, 0, 5.0, 6.0), StepRecord(0, 1, 6.0, 6.0)])
    figure = timeline_figure(record)
    assert figure.get_suptitle() == "compute waits for no expert in 2 steps"
    assert timeline_figure(record, (1, 1)).get_suptitle().endswith("in 1 step")
    assert "ESTIMATED" in {text.get_text() for text in texts(figure)}


@pytest.mark.parametrize("steps", [(1, 3), (1, 0), (-1, 2)])
def test_steps_that_there_are_not(steps: tuple[int, int]) -> None:
    with pytest.raises(
        ValueError, match=f"steps {steps[0]} to {steps[1]} are none of the record's 1"
    ):
        timeline_figure(by_hand(), steps)


def test_disk_and_host_have_rows_where_they_served_something() -> None:
    record = by_hand()
    names = {label.get_text() for label in timeline_figure(record).axes[0].get_yticklabels()}
    assert not names & SELDOM
    load = record.steps[0].loads[0]
    load.spans = [Span("disk", 10.001, 10.002), *load.spans]
    found = [label.get_text() for label in timeline_figure(record).axes[0].get_yticklabels()]
    assert found[:3] == ["layers", "compute", "disk"]
    assert "host compute" not in found
