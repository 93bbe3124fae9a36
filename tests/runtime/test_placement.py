"""Experts on disk, computed on the host, kept compressed or loaded coarse: as in the simulation."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from offsim.calibration.schema import Calibration, CodecFigures, DiskFigures
from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.model.generate import greedy_tokens
from offsim.policy.policy import Policy
from offsim.policy.precision import Low
from offsim.policy.transfer import Transfer
from offsim.record import Load, RunRecord, metrics_of
from offsim.runtime import ExpertStore, Run, run_driven, run_offloaded
from offsim.runtime.compressed import BlobArena
from offsim.runtime.tiered import TieredArena
from offsim.simulate import simulate
from offsim.study.prepare import recorded
from offsim.trace import Trace
from offsim.trace.cut import cut
from tests.builders import calibration, codec_figures, sized

from .test_driven import EXPERTS, LAYERS, MODEL, TRACE, offsim_threads

BOUND, COARSE = 2.0**-6, 2.0**-4
SHORT = cut(TRACE, tokens=4)
FAST = 1e9
PROMPTS, COUNT = [[10, 40, 41, 42, 43], [10, 60, 61]], 5
COMPARED = ("lookups", "link_bytes", "disk_bytes", "prefetch_bytes", "wasted_bytes")


@cache
def stored(codec: str, bound: float) -> ExpertStore:
    return ExpertStore.holding(MODEL, codec_named(codec), bound)


def store_of(policy: Policy) -> ExpertStore:
    low = None if policy.low is None else stored(policy.low.codec, policy.low.bound)
    return replace(stored(policy.codec, policy.bound), low=low)


def machine(store: ExpertStore) -> Calibration:
    """One with the bytes of the stores, a disk, and a host that computes."""

    def figures(one: ExpertStore) -> CodecFigures:
        shape = {"layers": one.shape.layers, "experts": one.shape.experts}
        made = codec_figures(str(one.codec), one.bound, decode_s=1e-6, **shape)
        return made.model_copy(update={"blob_bytes": one.blob_bytes})

    stores = {str(one.codec) + str(one.bound): one for one in (store, store.low) if one}
    shape = store.shape
    made = calibration(*map(figures, stores.values()), layers=shape.layers, experts=shape.experts)
    compute = made.compute.model_copy(update={"host_expert": sized((1, 1e-6))})
    facts = made.model.model_copy(update={"hidden": shape.hidden, "width": shape.width})
    disk = DiskFigures(label="MEASURED", latency_s=1e-6, bytes_per_s=1e9)
    return made.model_copy(update={"compute": compute, "model": facts, "disk": disk})


def loads_of(record: RunRecord) -> list[Load]:
    return [load for step in record.steps for load in step.loads]


def facts_of(load: Load) -> tuple[Any, ...]:
    return load.layer, load.expert, load.link_bytes, load.disk_bytes, load.ahead, load.used


def compare(run: Run, simulated: RunRecord) -> None:
    """Hold a run against its simulation; stages where nothing is given up on the way."""
    assert run.record.decisions() == simulated.decisions()
    measured, predicted = metrics_of(run.record), metrics_of(simulated)
    for name in COMPARED:
        assert getattr(measured, name) == getattr(predicted, name), name
    pairs = list(zip(loads_of(run.record), loads_of(simulated), strict=True))
    for own, expected in pairs:
        assert facts_of(own) == facts_of(expected)
    if not any(load.ahead for load, _ in pairs):
        for own, expected in pairs:
            stages = [span.stage for span in own.spans]
            # A simulation leaves out what takes no time, as raw blobs to decode.
            assert [s for s in stages if s in {x.stage for x in expected.spans}] == [
                span.stage for span in expected.spans
            ]
            assert own.ends_with == stages[-1]
    assert offsim_threads() == []


def check(policy: Policy, folder: Path, trace: Trace = SHORT, pace: float = FAST) -> Run:
    """Run and simulate a policy on generated experts, and hold both against each other."""
    store = store_of(policy)
    run = run_driven(MODEL, store, policy, trace, pace, profile=trace, folder=folder)
    compare(run, simulate(trace, policy, machine(store), pace, trace))
    assert list(folder.iterdir()) == []
    return run


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies that place experts in every way that goes together."""
    codec, bound = draw(st.sampled_from([("raw", 0.0), ("cuszp", BOUND), ("sz3", BOUND)]))
    one = stored(codec, bound).blobs[0][0].nbytes
    placed: dict[str, Any] = {}
    low = draw(st.booleans())
    if low:
        coarse = {"raw": ("cuszp", COARSE), "cuszp": ("raw", 0.0), "sz3": ("sz3", COARSE)}[codec]
        below = draw(st.sampled_from([0.3, 0.5, 0.7, 1.0]))
        placed["low"] = Low(codec=coarse[0], bound=coarse[1], below=below)
    else:
        blobs = draw(st.sampled_from([None, 0, 1, 4, 10, 99]))
        placed["host_bytes"] = None if blobs is None else int(blobs * one * 1.1)
        if codec == "cuszp":
            placed["keep"] = draw(st.sampled_from(["decoded", "compressed", "both", "both"]))
            if placed["keep"] == "both":
                placed["decoded_share"] = draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
        else:
            placed["host_tokens"] = draw(st.sampled_from([0, 1, 2, 9]))
    prefetch = draw(st.sampled_from(["none", "none", "gate", "last-token", "popularity"]))
    return Policy(
        codec=codec,
        bound=bound,
        cache=draw(st.sampled_from(["lru", "lfu", "s3-fifo", "weight", "random"])),
        slots=draw(st.integers(0, EXPERTS)),
        scope=draw(st.sampled_from(["layer", "global"])),
        seed=7,
        prefetch=prefetch,
        distance=draw(st.integers(1, 2)),
        prefetch_bytes=draw(st.sampled_from([None, 2 * one])),
        transfer=draw(st.sampled_from([Transfer(), Transfer(chunk_bytes=1000, channels=2)])),
        **placed,
    )


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(policy=policies())
def test_run_and_simulation_take_the_same_decisions(policy: Policy, tmp_path: Path) -> None:
    check(policy, tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"host_bytes": 0},
        {"host_bytes": 4 * 6144, "slots": 1},
        {"host_bytes": 4 * 6144, "prefetch": "last-token"},
        {"host_bytes": 10**9},
        {"host_tokens": 1},
        {"host_tokens": 99},
        {"host_tokens": 1, "host_bytes": 3 * 6144, "prefetch": "transition"},
        {"host_tokens": 2, "transfer": Transfer(chunk_bytes=100)},
        {"low": Low(codec="raw", below=0.5)},
    ],
    ids=str,
)
def test_a_raw_run_writes_the_tokens_of_the_plain_model(
    tiny_model: PreTrainedModel, tmp_path: Path, changed: dict[str, Any]
) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    recording = recorded(tiny_model, "tiny", store, PROMPTS, COUNT)
    policy = Policy(**{"slots": 2, **changed})
    own = replace(store, low=store if policy.low else None)
    run = run_offloaded(tiny_model, own, policy, PROMPTS, COUNT, FAST, folder=tmp_path)
    assert run.tokens == [greedy_tokens(tiny_model, prompt, COUNT) for prompt in PROMPTS]
    compare(run, simulate(recording.trace, policy, machine(own), FAST))
    assert list(tmp_path.iterdir()) == []
    found = run.record.decisions()
    assert any(d.from_disk for d in found) == (policy.host_bytes not in {None, 10**9})
    assert any(d.on_host for d in found) == (policy.host_tokens > 0)
    assert any(d.coarse for d in found) == (policy.low is not None)
    assert len(run.notes) == (policy.host_bytes is not None)


@pytest.mark.parametrize("keep", [{"slots": 1, "keep": "compressed"}, {"slots": 3, "keep": "both"}])
@pytest.mark.parametrize("prefetch", ["none", "last-token"])
@pytest.mark.parametrize("host_bytes", [None, 3000])
def test_a_device_that_keeps_blobs_writes_the_tokens_of_one_that_does_not(
    tiny_model: PreTrainedModel,
    tmp_path: Path,
    prefetch: str,
    host_bytes: int | None,
    keep: dict[str, Any],
) -> None:
    store = ExpertStore.of(tiny_model, codec_named("cuszp"), 2.0**-7)
    recording = recorded(tiny_model, "tiny", store, PROMPTS, COUNT)
    policy = store.policy(**keep, host_bytes=host_bytes, prefetch=prefetch)
    run = run_offloaded(tiny_model, store, policy, PROMPTS, COUNT, FAST, folder=tmp_path)
    assert run.tokens == recording.tokens
    compare(run, simulate(recording.trace, policy, machine(store), FAST))
    paths = {tuple(span.stage for span in load.spans) for load in loads_of(run.record)}
    assert ("device decode",) in paths


@pytest.mark.parametrize("codec", ["raw", "sz3"])
def test_what_the_host_computes_is_what_the_device_would(codec: str, tmp_path: Path) -> None:
    bound = 0.0 if codec == "raw" else BOUND
    outputs = []

    class Kept(type(MODEL)):  # type: ignore[misc]
        def forward(self, *arguments: Any) -> torch.Tensor:
            outputs[-1].append(super().forward(*arguments))
            return outputs[-1][-1]

    model = Kept(MODEL.shape, MODEL.distinct, sigma=MODEL.sigma)
    for tokens in (0, 1, 99):
        outputs.append([])
        policy = Policy(codec=codec, bound=bound, slots=2, host_tokens=tokens)
        run_driven(model, stored(codec, bound), policy, SHORT)
    plain, some, every = outputs
    for others in (some, every):
        assert all(torch.equal(a, b) for a, b in zip(plain, others, strict=True))


def test_the_host_computes_while_the_link_carries(tmp_path: Path) -> None:
    """The order of stages is that of the simulation, and what is computed sends activations."""
    run = check(Policy(slots=2, host_tokens=1, host_bytes=2 * 6144), tmp_path, TRACE)
    loads = [load for load in loads_of(run.record) if load.ends_with == "link"]
    assert loads
    for load in loads:
        assert [span.stage for span in load.spans][-2:] == ["host compute", "link"]
        assert load.link_bytes % (4 * MODEL.shape.hidden) == 0
        assert load.arrived
    paths = [[span.stage for span in load.spans] for load in loads_of(run.record)]
    assert ["disk", "host compute", "link"] in paths
    assert ["disk", "link", "device decode"] in paths
    assert sum(len(layer.experts) for step in run.times for layer in step.layers) == sum(
        len(d.hits) + len(d.misses) - len(d.on_host) for d in run.record.decisions()
    )


@pytest.mark.parametrize("blobs", [0, 2])
def test_a_prefetch_that_is_given_up_before_it_was_read_is_read_later(
    tmp_path: Path, blobs: int
) -> None:
    """A link so slow that prefetches are given up while they wait for the disk or behind it."""
    policy = Policy(
        slots=2, prefetch="last-token", host_bytes=blobs * MODEL.shape.bytes, distance=2
    )
    run = check(policy, tmp_path, cut(TRACE, tokens=3), MODEL.shape.bytes / 0.002)
    assert metrics_of(run.record).disk_bytes > 0


def test_blobs_on_the_device_are_forgotten_with_their_places() -> None:
    policy = Policy(codec="cuszp", bound=BOUND, slots=2, keep="compressed", prefetch="last-token")
    store = store_of(policy)
    arena = BlobArena(store.shape, staged=1)
    for decision in run_driven(MODEL, store, policy, TRACE).record.decisions():
        for expert, slot in zip(decision.misses, arena.place(decision), strict=True):
            assert arena.weights(decision.layer, expert).gate_up.data_ptr() == slot.data_ptr()
            if expert not in decision.staged:
                arena._kept[decision.layer, expert] = _done(store, decision.layer, expert)
        again = arena.again(decision)
        assert set(again) <= set(decision.hits)
        slots = [slot.data_ptr() for slot in arena._decoded.values()]
        assert len(set(slots)) == len(slots)
        arena.used(decision.layer, [*decision.hits, *decision.misses])
        arena.place_ahead(decision)
        for key in decision.fetched:
            arena._kept[key] = _done(store, *key)
    assert set(arena._decoded) <= set(arena._kept), "those that were fetched and not yet used"
    assert all(layer < LAYERS for layer, _ in arena._kept)


@pytest.mark.parametrize("share", [0.0, 0.34, 0.7, 1.0])
@pytest.mark.parametrize("prefetch", ["none", "last-token"])
def test_decoded_experts_keep_their_places_and_blobs_are_forgotten(
    share: float, prefetch: str
) -> None:
    policy = Policy(
        codec="cuszp", bound=BOUND, slots=3, keep="both", decoded_share=share, prefetch=prefetch
    )
    store = store_of(policy)
    kept = LAYERS * policy.decoded_slots(3)
    arena = TieredArena(store.shape, kept, staged=2)
    places: dict[tuple[int, int], int] = {}
    for decision in run_driven(MODEL, store, policy, TRACE).record.decisions():
        layer, tier = decision.layer, decision.decoded
        assert tier is not None
        for expert, slot in zip(decision.misses, arena.place(decision), strict=True):
            assert arena.weights(layer, expert).gate_up.data_ptr() == slot.data_ptr()
            if expert not in decision.staged:
                arena._kept[layer, expert] = _done(store, layer, expert)
        assert set(arena.again(decision)).isdisjoint(tier.hits)
        for expert in tier.hits:
            assert arena._decoded[layer, expert].data_ptr() == places[layer, expert]
        slots = [slot.data_ptr() for slot in arena._decoded.values()]
        assert len(set(slots)) == len(slots)
        arena.used(layer, [*decision.hits, *decision.misses])
        places = {key: slot.data_ptr() for key, slot in arena._decoded.items()}
        arena.place_ahead(decision)
        for key in decision.fetched:
            arena._kept[key] = _done(store, *key)
    assert arena._staying <= set(places)
    assert len(arena._staying) <= kept
    assert places.keys() - arena._staying <= arena._kept.keys(), "fetched and not yet used"
    assert bool(arena._staying) == (share > 0.3)


def _done(store: ExpertStore, layer: int, expert: int) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(kept=store.blobs[layer][expert])


def test_a_coarse_store_is_cut_with_the_other() -> None:
    both = replace(stored("raw", 0.0), low=stored("cuszp", COARSE))
    part = both.first(2)
    assert part.low is not None
    assert len(part.low.blobs) == len(part.blobs) == 2
    assert part.coarser is part.low
    assert stored("raw", 0.0).coarser is stored("raw", 0.0)


LOW = Low(codec="cuszp", bound=COARSE, below=0.5)


@pytest.mark.parametrize(
    ("policy", "low", "says"),
    [
        (Policy(low=LOW), None, "come under cuszp 0.0625 and the store has no such blobs"),
        (Policy(low=LOW), ("cuszp", BOUND), "stored under cuszp 0.015625 and the policy asks for"),
        (
            Policy(low=LOW.model_copy(update={"codec": "sz3"})),
            ("sz3", COARSE),
            "decodes on the device and sz3, for misses of low weight, does not; take two",
        ),
        (Policy(low=LOW, host_tokens=1), ("cuszp", COARSE), "come coarse only where host memory"),
        (Policy(low=LOW, host_bytes=9), ("cuszp", COARSE), "come coarse only where host memory"),
        (Policy(keep="compressed"), None, "codec raw does not decode on the device"),
        (Policy(keep="both"), None, "codec raw does not decode on the device"),
        (
            Policy(codec="sz3", bound=BOUND, keep="compressed"),
            None,
            "codec sz3 does not decode on the device, so that experts cannot be kept compressed",
        ),
        (Policy(codec="cuszp", bound=BOUND, host_tokens=1), None, "take raw or a host codec"),
    ],
)
def test_what_cannot_be_is_refused(
    policy: Policy, low: tuple[str, float] | None, says: str
) -> None:
    store = replace(stored(policy.codec, policy.bound), low=stored(*low) if low else None)
    with pytest.raises(InputError, match=says):
        run_driven(MODEL, store, policy, SHORT)
    assert offsim_threads() == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder for blobs can be made there .*; choose"):
        run_driven(MODEL, stored("raw", 0.0), Policy(host_bytes=0), SHORT, folder=tmp_path / "no")
