"""The code for CUDA, on a device that is not there: all but the device itself is what runs."""

import inspect
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from offsim.codec import Blob, codec_named
from offsim.codec.expert import ExpertBlob
from offsim.errors import CodecError, InputError, RunError
from offsim.model.generate import greedy_tokens
from offsim.model.hook import Resident, handled
from offsim.policy.transfer import Transfer
from offsim.record import RunRecord
from offsim.runtime import ExpertStore, Run, run_driven, run_offloaded
from offsim.runtime.devices import CPU, Cuda, device_named
from offsim.runtime.devices.cuda import coming
from offsim.simulate import simulate
from offsim.study.prepare import recorded, under
from tests.builders import calibration, codec_figures
from tests.runtime.test_driven import MODEL, TRACE

from .fake_cuda import FakeCuda, FakeCupy, Quick

PROMPTS = [[10, 40, 41, 42, 43], [10, 60, 61]]
COUNT = 4
STORAGES = {"raw": 0.0, "cuszp": 2.0**-9, "cuszp:mode=plain": 2.0**-9, "lossless": 0.0}
POLICIES: dict[str, dict[str, Any]] = {
    "on demand": {"slots": 2},
    "no slots": {"slots": 0},
    "prefetched": {"slots": 2, "prefetch": "gate"},
    "in chunks": {"slots": 1, "transfer": Transfer(chunk_bytes=1000)},
    "on two channels": {"slots": 1, "transfer": Transfer(channels=2)},
    "from disk": {"slots": 2, "host_bytes": 20_000},
}
PLACED = [
    *((codec, policy) for codec in ("raw", "cuszp", "lossless") for policy in POLICIES.values()),
    ("cuszp:mode=plain", {"slots": 2}),
    ("cuszp", {"slots": 2, "keep": "compressed"}),
    ("cuszp", {"slots": 3, "keep": "compressed", "prefetch": "gate"}),
    ("cuszp", {"slots": 2, "keep": "both"}),
    ("cuszp", {"slots": 3, "keep": "both", "prefetch": "gate"}),
    ("raw", {"slots": 1, "host_tokens": 2}),
    ("lossless", {"slots": 1, "host_tokens": 2}),
]


def stored(model: PreTrainedModel, codec: str) -> ExpertStore:
    return ExpertStore.of(model, codec_named(codec), STORAGES[codec])


def check_spans(record: RunRecord) -> None:
    """Stages follow each other, from when the load was asked for to when compute went on."""
    for step in record.steps:
        for load in step.loads:
            ends = [
                load.submitted,
                *(time for span in load.spans for time in (span.start, span.end)),
            ]
            assert ends == sorted(ends)
        for wait in step.waits:
            assert wait.load.spans[-1].end <= wait.end


@pytest.mark.parametrize(("codec", "placed"), PLACED)
def test_tokens_and_decisions_are_those_of_the_cpu(
    tiny_model: PreTrainedModel, device: Cuda, codec: str, placed: dict[str, Any]
) -> None:
    store = stored(tiny_model, codec)
    policy = store.policy(**placed)
    before = [parameter.data_ptr() for parameter in tiny_model.parameters()]
    runs = [
        run_offloaded(tiny_model, store, policy, PROMPTS, COUNT, device=one)
        for one in (CPU, device)
    ]
    assert runs[0].tokens == runs[1].tokens
    assert runs[0].record.decisions() == runs[1].record.decisions()
    assert runs[0].record.label == runs[1].record.label == "MEASURED"
    check_spans(runs[1].record)
    assert [parameter.data_ptr() for parameter in tiny_model.parameters()] == before


def test_the_kernels_themselves_decode_for_a_run(
    tiny_model: PreTrainedModel, with_kernels: Cuda
) -> None:
    store = stored(tiny_model, "cuszp")
    plain = greedy_tokens(under(tiny_model, store), PROMPTS[1], 2)
    policy = store.policy(slots=3)
    run = run_offloaded(tiny_model, store, policy, PROMPTS[1:], 2, device=with_kernels)
    assert run.tokens == [plain]


def test_a_run_decides_as_its_simulation(tiny_model: PreTrainedModel, device: Cuda) -> None:
    store = stored(tiny_model, "cuszp")
    policy = store.policy(slots=2, prefetch="gate")
    recording = recorded(tiny_model, "tiny", store, PROMPTS, COUNT, lookahead=1)
    run = run_offloaded(tiny_model, store, policy, PROMPTS, COUNT, 1e8, device=device)
    made = codec_figures("cuszp", store.bound).model_copy(update={"blob_bytes": store.blob_bytes})
    simulated = simulate(recording.trace, policy, calibration(made), 1e8)
    assert run.tokens == recording.tokens
    assert run.record.decisions() == simulated.decisions()


def test_a_driven_run_is_that_of_the_cpu(device: Cuda) -> None:
    store = ExpertStore.holding(MODEL, codec_named("cuszp"), 2.0**-6)
    policy = store.policy(slots=2, prefetch="gate")
    runs = [run_driven(MODEL, store, policy, TRACE, device=one) for one in (CPU, device)]
    assert runs[0].record.decisions() == runs[1].record.decisions()
    check_spans(runs[1].record)


def test_each_stage_has_a_stream_of_its_own(
    tiny_model: PreTrainedModel, device: Cuda, fake: FakeCuda, cupy: FakeCupy
) -> None:
    store = stored(tiny_model, "cuszp")
    run_offloaded(tiny_model, store, store.policy(slots=1), PROMPTS, COUNT, device=device)
    streams = [fake.used[name] for name in ("offsim link", "offsim device decode", "MainThread")]
    assert [len(own) for own in streams] == [1, 1, 1]
    assert len(set.union(*streams)) == 3
    matrix = ["lengths", "starts", "decode_bf16"]
    assert cupy.launched == matrix * (len(cupy.launched) // 3)
    assert cupy.launched
    assert sum(cupy.pinned) == store.nbytes, "every blob was pinned once, and nothing else"


def test_a_pace_is_kept_where_the_copy_is_faster(tiny_model: PreTrainedModel, device: Cuda) -> None:
    store = stored(tiny_model, "raw")
    pace = store.shape.bytes / 0.01
    for transfer in (Transfer(), Transfer(chunk_bytes=3000)):
        policy = store.policy(slots=0, transfer=transfer)
        run = run_offloaded(tiny_model, store, policy, PROMPTS[1:], 1, pace, device=device)
        links = [span for load in loads_of(run) for span in load.spans if span.stage == "link"]
        assert min(span.end - span.start for span in links) >= 0.01


def loads_of(run: Run) -> list[Any]:
    return [load for step in run.record.steps for load in step.loads]


def damaged(blob: ExpertBlob) -> ExpertBlob:
    """The last matrix says that it has another rate in its first block."""
    *others, last = blob.blobs
    payload = bytearray(last.payload)
    payload[0] ^= 7
    return ExpertBlob((*others, Blob(last.header, bytes(payload))))


def test_a_damaged_stream_ends_the_run(tiny_model: PreTrainedModel, with_kernels: Cuda) -> None:
    store = stored(tiny_model, "cuszp")
    blobs = [[damaged(blob) for blob in row] for row in store.blobs]
    broken, policy = replace(store, blobs=blobs), store.policy(slots=2)
    says = r"loading expert \d of layer 0 failed: cuszp: \d+ bytes where the rates call for \d+"
    with pytest.raises(RunError, match=says):
        run_offloaded(tiny_model, broken, policy, PROMPTS, COUNT, device=with_kernels)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("offsim ")]


def test_raw_weights_of_another_size_are_refused(device: Cuda) -> None:
    store = ExpertStore.holding(MODEL, codec_named("raw"), 0.0)
    blob, slot = store.blobs[0][0], device.slots(1, MODEL.shape.values)[0]
    with pytest.raises(CodecError, match="raw: 8 bytes where 512 values take 1024"):
        device.unpack(blob, [torch.zeros(8, dtype=torch.uint8)] * 3, slot, decoded=False)


def test_a_codec_without_kernels_is_refused(tiny_model: PreTrainedModel, device: Cuda) -> None:
    store = ExpertStore.of(tiny_model, codec_named("rtn-int8"), 0.0)
    with pytest.raises(InputError, match=r"rtn-int8 has no kernels for the device cuda; take raw,"):
        run_offloaded(tiny_model, store, store.policy(), PROMPTS, COUNT, device=device)


def test_memory_that_cannot_be_pinned_is_refused(
    tiny_model: PreTrainedModel, fake: FakeCuda
) -> None:
    device = Cuda(fake, FakeCupy(fake, Quick(), most_pinned=5000), "cpu")
    store = stored(tiny_model, "raw")
    with pytest.raises(InputError, match=r"host memory of 2.05 KB cannot be pinned"):
        run_offloaded(tiny_model, store, store.policy(), PROMPTS, COUNT, device=device)


def test_plain_copies_come_from_pinned_and_from_pageable_memory(
    device: Cuda, cupy: FakeCupy
) -> None:
    assert CPU.memories(8) == {}
    memories = device.memories(5000)
    assert list(memories) == ["pinned", "pageable"], "runs carry from the first"
    assert cupy.pinned == [5000]
    for one in memories.values():
        before = device.now()
        begin, end = one.copy([one.memory[:3000], one.memory[4000:]])
        assert before <= begin < end <= device.now()
    assert cupy.pinned == [5000], "copies pin nothing more"
    with pytest.raises(InputError, match="host memory of 5 KB cannot be pinned"):
        Cuda(FakeCuda(), FakeCupy(FakeCuda(), Quick(), most_pinned=10), "cpu").memories(5000)


def test_a_device_that_has_finished_has_done_what_was_asked(device: Cuda, fake: FakeCuda) -> None:
    into = torch.zeros(64)
    with fake.stream(fake.Stream(torch.device("cpu"))):
        into.copy_(torch.ones(64), non_blocking=True)
    assert not bool(into.any()), "nobody has waited for it yet"
    device.finish()
    CPU.finish()
    assert bool(into.all())


def test_slots_that_the_device_has_no_room_for_are_refused(
    device: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(InputError, match="the device cuda has no 8 KB for 10 experts"):
        device.slots(10, 200)


def test_experts_that_share_a_blob_share_pinned_memory(device: Cuda, cupy: FakeCupy) -> None:
    store = ExpertStore.holding(MODEL, codec_named("raw"), 0.0)
    held = device.hold(replace(store, low=store))
    kept = {id(blob) for one in (held, held.low) for row in one.blobs for blob in row}  # type: ignore[union-attr]
    assert len(kept) == 2 * MODEL.distinct
    assert sum(cupy.pinned) == 2 * MODEL.distinct * MODEL.shape.bytes
    for row, same in zip(store.blobs, held.blobs, strict=True):
        for blob, other in zip(row, same, strict=True):
            assert [bytes(part) for part in other.payloads()] == [
                bytes(part) for part in blob.payloads()
            ]


def test_all_but_the_experts_of_a_model_come_to_the_device(tiny_model: PreTrainedModel) -> None:
    come = {id(tensor) for tensor in coming(tiny_model, experts=False)}
    names = {name for name, tensor in tiny_model.named_parameters() if id(tensor) not in come}
    assert names == {name for name, _ in tiny_model.named_parameters() if ".experts." in name}
    assert names
    assert {id(buffer) for buffer in tiny_model.buffers()} <= come
    whole = [*tiny_model.parameters(), *tiny_model.buffers()]
    assert {id(tensor) for tensor in whole} == set(map(id, coming(tiny_model, experts=True)))


def test_a_model_that_is_there_as_a_whole_writes_its_tokens(
    tiny_model: PreTrainedModel, device: Cuda
) -> None:
    plain = greedy_tokens(tiny_model, PROMPTS[0], COUNT)
    with device.hosting(tiny_model, experts=True), handled(tiny_model, Resident(tiny_model)):
        assert greedy_tokens(tiny_model, PROMPTS[0], COUNT) == plain


def test_the_clock_of_the_device_is_that_of_the_run(device: Cuda) -> None:
    into = torch.zeros(1 << 16)
    source = torch.ones(1 << 16)
    before = device.now()
    _, (begin, end) = device.lane().run(lambda: into.copy_(source, non_blocking=True))
    assert before <= begin <= end <= device.now()
    assert end - before < 0.05, "the two clocks are apart"
    assert bool(into.all()), "it was not waited for"


# ---- What is asked of CUDA, and whether it is there --------------------------------------------


def test_what_is_missing_is_named_in_one_sentence(
    fake: FakeCuda, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = FakeCuda(available=False)
    with pytest.raises(InputError, match=r"cannot be used here: torch finds no CUDA device$"):
        Cuda(none, cupy)
    monkeypatch.setitem(sys.modules, "cupy", None)
    remedy = r"CuPy is not installed: pip install 'offsim\[gpu\]'$"
    with pytest.raises(InputError, match=f"cannot be used here: {remedy}"):
        Cuda(fake)
    with pytest.raises(InputError, match=f"torch finds no CUDA device and {remedy}"):
        Cuda(none)


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is built for CUDA")
def test_a_torch_that_is_built_for_the_cpu_alone_is_named() -> None:
    with pytest.raises(InputError, match="is built for the CPU alone: install a build for CUDA"):
        device_named("cuda")


def test_devices_have_names() -> None:
    assert device_named("cpu") is CPU
    with pytest.raises(InputError, match="no device is called 'tpu'; there are cpu, cuda"):
        device_named("tpu")


def test_torch_has_what_the_fake_has(fake: FakeCuda) -> None:
    """Names and parameters, as far as a machine without a device can tell."""
    for name in ("stream", "synchronize", "is_available", "get_device_name", "Stream", "Event"):
        assert callable(getattr(fake, name))
        assert callable(getattr(torch.cuda, name))
    assert list(inspect.signature(torch.cuda.stream).parameters) == ["stream"]
    assert "device" in inspect.signature(torch.cuda.Stream.__new__).parameters
    assert "enable_timing" in inspect.signature(torch.cuda.Event.__new__).parameters
    for name in ("record", "synchronize", "elapsed_time"):
        ours, theirs = getattr(fake.Event, name), getattr(torch.cuda.Event, name)
        assert len(inspect.signature(ours).parameters) == len(inspect.signature(theirs).parameters)


def test_cupy_has_what_the_fake_has(cupy: FakeCupy) -> None:
    real = pytest.importorskip("cupy", reason="needs CuPy: pip install 'offsim[gpu]'")
    for name in ("Device", "ExternalStream", "alloc_pinned_memory"):
        assert callable(getattr(cupy.cuda, name))
        assert callable(getattr(real.cuda, name))
    assert issubclass(real.cuda.runtime.CUDARuntimeError, Exception)
    assert callable(real.RawModule)
    assert isinstance(real.__version__, str)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("codec", ["raw", "cuszp", "lossless"])
def test_the_device_itself(tiny_model: PreTrainedModel, codec: str) -> None:
    store, real = stored(tiny_model, codec), device_named("cuda")
    policy = store.policy(slots=2, prefetch="gate")
    with real.hosting(tiny_model, experts=True):
        recording = recorded(tiny_model, "tiny", store, PROMPTS, COUNT, lookahead=1)
    run = run_offloaded(tiny_model, store, policy, PROMPTS, COUNT, device=real)
    assert run.tokens == recording.tokens
    check_spans(run.record)
