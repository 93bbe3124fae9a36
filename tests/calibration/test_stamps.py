import math

import numpy as np
import pytest

from offsim.calibration import stamps
from offsim.calibration.schema import CoolingPoint, SizedFigure
from offsim.calibration.stamps import (
    adding_up,
    compute_figures,
    foresight_figures,
    handover_figures,
    overshoots,
    undisturbed,
)
from offsim.policy.cache import Decision
from offsim.record import Load, RunRecord, Span, StepRecord, Wait
from offsim.record.times import LayerTimes, StepTimes
from tests.builders import figure

COOLING = [CoolingPoint(idle_s=at, extra=figure(at / 2)) for at in (1.0, 2.0)]
PARTS = ("first", "dense", "head", "dispatch", "expert")


def resident_step(start: float) -> StepTimes:
    """Two layers: first 5, dense 3, dispatch 1 (half of it before), two experts of 2, head 4."""
    layers, now = [], start + 5
    for _ in range(2):
        experts = [(1, now + 0.5, now + 2.5), (1, now + 2.5, now + 4.5)]
        layers.append(LayerTimes(1, now, now + 0.25, 0, experts, now + 5))
        now += 5 + 3
    return StepTimes(1, start, layers, now - 3 + 4)


def missing_step(start: float, idle: float, cold: float) -> tuple[StepRecord, StepTimes]:
    """The same with one miss a layer (asking 1, waiting `idle`) and `cold` more dense."""
    record, layers, now = StepRecord(0, 1, start), [], start + 5
    for layer in range(2):
        load = Load(layer, 0, 80, now + 1.0)
        load.spans += [Span("link", now + 1.5, now + 1.5 + idle / 2)]
        load.spans += [Span("device decode", now + 2 + idle / 2, now + 1.25 + idle)]
        since = now + 1.5
        experts = [(1, since + idle, since + idle + 2), (1, since + idle + 2, since + idle + 4)]
        layers.append(LayerTimes(1, now, now + 1.25, 1, experts, now + 6 + idle))
        record.loads.append(load)
        record.waits.append(Wait(since, since + idle, load))
        record.decisions.append(Decision(layer, (1,), (0,), ((),)))
        now += 6 + idle + 3 + cold
    record.end = now
    return record, StepTimes(1, start, layers, now)


def seen(idle: float, cold: float) -> tuple[RunRecord, list[StepTimes]]:
    steps = [missing_step(100.0 * n, idle, cold) for n in range(12)]
    return RunRecord("MEASURED", [r for r, _ in steps]), [t for _, t in steps]


def test_compute_is_taken_apart() -> None:
    times = [resident_step(50.0 * n) for n in range(12)]
    made = compute_figures(times, [], [seen(8, 0.5), seen(2, 0.25)], submit_s=1.0)
    parts = {
        name: [(p.size, p.seconds.value) for p in getattr(made, name)]
        for name in ("first", "dense", "dispatch", "expert", "head")
    }
    assert parts == {
        "first": [(1, 5.0)],
        "dense": [(1, 3.0)],
        "dispatch": [(1, 1.0)],
        "expert": [(1, 2.0)],
        "head": [(1, 4.0)],
    }
    assert [p.idle_s for p in made.cooling] == pytest.approx([2, 8])
    assert [p.extra.value for p in made.cooling] == pytest.approx([0.25, 0.5])


def beside_a_decoder(start: float) -> tuple[StepRecord, StepTimes]:
    """A missing step in which a load is decoded beside the second expert, which takes 3, not 2."""
    record, times = missing_step(start, 2, 0)
    for number, layer in enumerate(times.layers):
        _, begin, _ = layer.experts[1]
        for later in times.layers[number + 1 :]:
            later.enter, later.asked, later.leave = (
                later.enter + 1,
                later.asked + 1,
                later.leave + 1,
            )
            later.experts = [(n, first + 1, last + 1) for n, first, last in later.experts]
        layer.experts[1] = (1, begin, begin + 3)
        layer.leave += 1
        load = Load(number, 7, 80, begin, [Span("device decode", begin, begin + 3)], ahead=True)
        record.loads.append(load)
        wait = record.waits[number]
        record.waits[number] = Wait(wait.start + number, wait.end + number, wait.load)
    times.end += 2
    return record, times


def test_what_a_decoder_costs_compute_is_not_taken_for_cold_caches() -> None:
    times = [resident_step(50.0 * n) for n in range(12)]
    steps = [missing_step(100.0 * n, 2, 0) for n in range(12)]
    steps += [beside_a_decoder(100.0 * n) for n in range(12, 24)]
    mixed = (RunRecord("MEASURED", [r for r, _ in steps]), [t for _, t in steps])
    made = compute_figures(times, [], [mixed], submit_s=1.0)
    assert [point.extra.value for point in made.cooling] == [pytest.approx(0, abs=1e-9)]
    for record, _ in steps[12:]:  # as if nothing had been decoded meanwhile
        record.loads = record.loads[:2]
    made = compute_figures(times, [], [mixed], submit_s=1.0)
    assert made.cooling[0].extra.value > 0.3


def interrupted(number: int) -> StepTimes:
    """A step of single tokens in which the first part, the dense one or the head takes 10 more."""
    step, part = resident_step(50.0 * number), number % 3
    for layer in step.layers[0 if part == 0 else 1 if part == 1 else 2 :]:
        layer.enter, layer.asked, layer.leave = (
            time + 10 for time in (layer.enter, layer.asked, layer.leave)
        )
        layer.experts = [(tokens, start + 10, end + 10) for tokens, start, end in layer.experts]
    step.end += 10
    return step


def test_parts_that_are_interrupted_in_turn_add_up_to_whole_steps() -> None:
    """The centre of each part is that of two steps in three; of each step a part takes 10 more."""
    steps = [interrupted(number) for number in range(12)]
    centres = {"first": 5.0, "dense": 3.0, "dispatch": 1.0, "expert": 2.0, "head": 4.0}
    made = adding_up({name: sized(value) for name, value in centres.items()}, steps, 0.0)
    whole = steps[0].end - steps[0].start
    added = sum(made[name][0].seconds.value for name in ("first", "dense", "head"))
    added += 2 * made["dispatch"][0].seconds.value + 4 * made["expert"][0].seconds.value
    assert added == pytest.approx(whole) == pytest.approx(32)


def test_prompts_are_scaled_by_prompts_and_steps_that_load_by_nothing() -> None:
    slow = resident_step(0.0)
    slow.tokens, slow.end = 8, slow.end + 22
    loading = missing_step(0.0, 8, 1)[1]
    parts = {name: [*sized(1.0), SizedFigure(size=8, seconds=figure(2.0))] for name in PARTS}
    made = adding_up(parts, [slow, loading], 0.0)
    assert {name: [one.seconds.value for one in table] for name, table in made.items()} == {
        name: [1.0, pytest.approx(2 * 44 / 12)] for name in PARTS
    }


def sized(seconds: float) -> list[SizedFigure]:
    return [SizedFigure(size=1, seconds=figure(seconds))]


def test_attention_is_what_dense_parts_take_longer_by_context() -> None:
    def attending(number: int, context: int) -> StepTimes:
        step = resident_step(50.0 * number)
        late, layer = 0.25 * context, step.layers[1]
        experts = [(n, start + late, end + late) for n, start, end in layer.experts]
        moved = LayerTimes(
            1, layer.enter + late, layer.asked + late, 0, experts, layer.leave + late
        )
        return StepTimes(1, step.start - late, [step.layers[0], moved], step.end + late, context)

    times = [attending(n, n % 3) for n in range(12)]
    long = [attending(20 + n, 8 + n) for n in range(6)]
    made = compute_figures(times, [], [seen(8, 0.5)], submit_s=1.0, long=long)
    assert made.attention_s is not None
    assert made.attention_s.value == pytest.approx(0.25)
    assert [(p.size, p.seconds.value) for p in made.dense] == [(1, pytest.approx(3.0))]
    assert [(p.size, p.seconds.value) for p in made.first] == [(1, pytest.approx(5.0))]
    alone = compute_figures(times, [], [seen(8, 0.5)], submit_s=1.0)
    assert alone.attention_s is None


def test_foresight_is_what_dispatch_takes_longer() -> None:
    """Asking takes 0.25 without it; two of three loads come ahead, at 0.1 and 0.05 for each."""
    resident = [resident_step(50.0 * n) for n in range(12)]
    times = [resident_step(50.0 * n) for n in range(12)]
    for layer in (layer for step in times for layer in step.layers):
        layer.misses, layer.fetched, layer.fetching = 1, 2, 0.3
        layer.asked += 0.6
    made = foresight_figures("gate", 2, times, resident, submit_s=0.1)
    assert (made.prefetch, made.distance) == ("gate", 2)
    assert [(p.size, p.seconds.value) for p in made.seconds] == [(1, pytest.approx(0.6))]
    assert made.fetch_s == pytest.approx(0.1), "all layers fetch as much: as for any load"


def test_what_a_load_that_is_fetched_ahead_takes_is_told_from_layers_that_fetch_more() -> None:
    """A lookup takes 0.25, and 0.3 more; each load ahead takes 0.2, which others do not."""
    resident = [resident_step(50.0 * n) for n in range(24)]
    times = [resident_step(50.0 * n) for n in range(24)]
    for number, layer in enumerate(layer for step in times for layer in step.layers):
        layer.fetched = number % 3
        layer.asked, layer.fetching = layer.asked + 0.3, 0.2 * layer.fetched
    made = foresight_figures("gate", 1, times, resident, submit_s=0.1)
    assert made.fetch_s == pytest.approx(0.2)
    assert [(p.size, p.seconds.value) for p in made.seconds] == [(1, pytest.approx(0.3))]


def test_hand_overs_are_the_gaps_between_stages() -> None:
    made = handover_figures([seen(8, 0.5)], asking_nothing_s=0.25)
    assert made.submit_s.value == pytest.approx(1.0)
    assert made.start_s.value == pytest.approx(0.5)
    assert made.between_s.value == pytest.approx(0.5)
    assert made.wake_s.value == pytest.approx(0.25)


def test_a_load_that_queues_for_a_stage_says_nothing_about_hand_overs() -> None:
    def load(arrived: float, start: float) -> Load:
        spans = [Span("link", 0.0, arrived), Span("device decode", start, start + 5.0)]
        return Load(0, 0, 80, 0.0, spans)

    record, times = seen(8, 0.5)
    for step in record.steps:
        step.loads[:] = [load(1.0, 1.5), load(2.0, 6.5), load(12.0, 12.5)]
    made = handover_figures([(record, times)], asking_nothing_s=0.25)
    assert (made.between_s.value, made.between_s.samples) == (pytest.approx(0.5), 24)


def test_coldness_falls_to_a_share_where_nothing_is_waited_for() -> None:
    assert stamps._decaying([8.0, 0.0, 0.0, 4.0, 0.0], 0.5) == [8.0, 4.0, 2.0, 4.0, 2.0]


def test_overshoot_is_what_a_transfer_takes_beyond_its_pace() -> None:
    record, _ = missing_step(0.0, 4.0, 0.0)  # 80 bytes in 2 s
    assert list(overshoots(RunRecord("MEASURED", [record]), 80.0)) == pytest.approx([1.0, 1.0])


def test_a_stage_is_undisturbed_while_compute_waits_for_its_load() -> None:
    record, _ = missing_step(0.0, 4.0, 0.0)
    record.waits.pop()  # compute did something else during the second load
    (seconds,) = undisturbed(RunRecord("MEASURED", [record]), "device decode")
    assert seconds == pytest.approx(1.25)
    record.waits.clear()
    assert len(undisturbed(RunRecord("MEASURED", [record]), "device decode")) == 2
    assert undisturbed(RunRecord("MEASURED", [record]), "host decode") == []


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 0.9])
def test_how_soon_caches_are_warm_is_told_in_spite_of_interruptions(share: float) -> None:
    rng = np.random.default_rng(0)
    idle = rng.choice([0.0, 1.0, 2.0], 400 * 9)
    lost = stamps._decaying((idle / 2).tolist(), share)  # as COOLING has it
    for layer in range(0, len(lost), 90):
        lost[layer + 7] += 50.0
    lost[8::9] = [math.nan] * 400  # what the last layer of a step lost is not seen
    spells = [list(zip(idle.tolist(), lost, strict=True))]
    assert stamps._still_cold(spells, COOLING) == pytest.approx(share, abs=0.01)


def test_what_is_lost_is_read_over_steps_that_follow_each_other() -> None:
    record, times = seen(8, 0.5)
    times[5].tokens = 3  # a prompt
    costs = compute_figures([resident_step(50.0 * n) for n in range(12)], [], [], submit_s=1.0)
    spells = list(stamps._losses((record, times), costs, 1.0, 1.0, 1.0))
    assert [len(spell) for spell in spells] == [10, 12]
    idle, lost = zip(*spells[0][:4], strict=True)
    assert idle == pytest.approx([8] * 4)
    assert lost == pytest.approx([0.5, math.nan, 0.5, math.nan], nan_ok=True)
