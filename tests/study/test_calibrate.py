from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from offsim.calibration.replicates import replicate
from offsim.calibration.schema import Calibration
from offsim.calibration.uncertainty import floats
from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.files import read_yaml, write_yaml
from offsim.policy.policy import Policy
from offsim.record import metrics_of
from offsim.runtime.devices import CPU, Cuda
from offsim.simulate import simulate
from offsim.simulate.band import BANDED, band
from offsim.study import calibrate as module
from offsim.study.calibrate import Calibrator, Effort
from offsim.study.compute_sampler import HALVED_SECONDS, MISS_SECONDS
from offsim.study.decoders import OWN
from offsim.study.plan import Plan
from offsim.study.study import MODEL, calibrate_alone, check_alone
from offsim.study.subject import DrivenSubject, ModelSubject
from offsim.testbed.generated import generated_model
from offsim.trace.cut import cut, joined
from tests.builders import TOY
from tests.builders import calibration as made_up
from tests.runtime.devices.fake_cuda import FakeCuda, FakeCupy, Quick

EFFORT = Effort(rounds=4, requests=2, tokens=5, repeats=2)
KEYS = [("raw", 0.0), ("cuszp", 2.0**-8), ("sz3", 2.0**-8)]


def test_a_calibration_keeps_how_sure_it_is() -> None:
    """On requests of unlike length, so that rounds have steps that others do not."""
    trace = joined([TOY, TOY, cut(TOY, tokens=4), TOY])
    subject = DrivenSubject(generated_model((3, 4, 16, 24)), trace)
    stores = {key: subject.store(codec_named(key[0]), key[1]) for key in KEYS}
    calibrator = Calibrator(subject, stores, EFFORT)
    for _ in range(EFFORT.rounds):
        calibrator.round()
    plain = calibrator.result()
    assert (plain.replicates, plain.inner_runs) == (None, [])
    made = calibrator.result(replicates=3)
    assert made.replicates is not None
    assert made.replicates.count == 3
    varied = set(made.replicates.values)
    for path in ("link.latency_s", "link.overshoot_s.value", "handover.wake_s.value"):
        assert path in varied
    for part in ("compute.dense.", "compute.cooling.", "compute.foresight.", "codecs.2.unpack_s."):
        assert any(path.startswith(part) for path in varied), part
    raw, *others = plain.codecs
    assert raw.foresight == plain.compute.foresight
    for codec in others:
        known = [(one.prefetch, one.distance) for one in codec.foresight]
        assert known == [(one.prefetch, one.distance) for one in raw.foresight] != []
        for one, plainly in zip(codec.foresight, raw.foresight, strict=True):
            assert one.seconds[0] != plainly.seconds[0]
    assert not any("bound" in path or "ratio" in path for path in varied)
    assert floats(replicate(made, 2)).keys() == floats(made).keys()
    assert len(made.inner_runs) == 1 + len(HALVED_SECONDS) + len(MISS_SECONDS) + 2 * len(KEYS)
    for run in made.inner_runs:
        assert len(run.prefill) == len(run.decode) == EFFORT.rounds
        assert run.decode[0]
        assert min(min(row) for row in run.decode) > 0
    found = band(trace, Policy(slots=2), made, 1e8)
    assert sorted(found) == sorted(BANDED)
    assert all(0 < ends.low < ends.high for ends in found.values())


def test_disk_and_host_are_measured_where_asked(tmp_path: Path) -> None:
    trace = joined([TOY, TOY])
    subject = DrivenSubject(generated_model((3, 4, 16, 24)), trace)
    stores = {key: subject.store(codec_named(key[0]), key[1]) for key in KEYS[:2]}
    effort = replace(EFFORT, rounds=3, placed=True)
    calibrator = Calibrator(subject, stores, effort, folder=tmp_path)
    for _ in range(effort.rounds):
        calibrator.round()
    made = calibrator.result(replicates=2)
    assert made.disk is not None
    assert made.disk.label == "MEASURED"
    assert min(point.size for point in made.compute.host_expert) == 1
    assert made.replicates is not None
    assert any(path.startswith("compute.host_expert.") for path in made.replicates.values)
    assert "disk.bytes_per_s" in made.replicates.values
    assert not list(tmp_path.iterdir())
    for placed in ({"host_bytes": 1000}, {"host_tokens": 1}):
        assert simulate(trace, Policy(slots=1, **placed), made, 1e8).label == "SIMULATED"
    plain = Calibrator(subject, stores, EFFORT)
    plain.round()
    assert plain.result().disk is None


def cuda() -> Cuda:
    fake = FakeCuda()
    return Cuda(fake, FakeCupy(fake, Quick()), "cpu")


def test_a_device_is_measured_as_a_whole_and_its_calibration_predicts(
    tiny_model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPLICATES", 2)
    subject = ModelSubject(tiny_model, MODEL, cuda())
    effort = Effort(rounds=3, requests=1, tokens=3, repeats=1)
    keys = [("raw", 0.0), ("cuszp", 2.0**-9), ("sz3", 2.0**-9)]
    write_yaml(tmp_path / "c.yaml", calibrate_alone(keys, effort, lambda *_: None, subject))
    made = read_yaml(tmp_path / "c.yaml", Calibration)
    assert made.measured
    device = made.device
    assert device is not None
    assert (device.label, device.name) == (
        "MEASURED",
        "a CUDA device that is not there, CuPy 0",
    )
    assert {(one.memory, one.channels) for one in device.copies} == {
        *(("pinned", channels) for channels in (2, 4)),
        *(("pageable", channels) for channels in (1, 2, 4)),
    }
    assert made.link.bytes_per_s > 0
    assert [point.seconds.samples for point in made.link.copies] == [3] * len(made.link.copies)
    assert [(one.decoder, one.codec) for one in device.decoders] == [(OWN, "cuszp")]
    assert len(device.left_out) == 2, "neither library is here"
    assert made.compute.expert[0].seconds.value > 0
    assert made.compute.dense[0].seconds.value > 0
    for codec, (name, bound) in zip(made.codecs, keys, strict=True):
        assert (codec.codec, codec.bound) == (name, bound)
        assert codec.decode_s.value > 0
        assert min(codec.compute_slowdown, codec.decode_slowdown, codec.experts_slowdown) >= 1
    assert [codec.placement for codec in made.codecs] == ["device", "device", "host"]
    assert made.replicates is not None
    assert not any(path.startswith("device.") for path in made.replicates.values)
    assert replicate(made, 0).device == device
    trace = subject.recorded(subject.store(codec_named("raw"), 0.0), subject.drawn(1, 1), 3).trace
    simulated = simulate(trace, Policy(codec="cuszp", bound=2.0**-9, slots=2), made, 1e8)
    assert simulated.label == "SIMULATED"
    assert metrics_of(simulated).tpot_s > 0
    # Its own runs hold it: on the device that was measured, and on no other kind.
    plan = Plan(effort, requests=1, tokens=3, slots=(2,), paces=(1.0,), repeats=1, items=0)
    table, facts = check_alone(made, plan, tmp_path, lambda *_: None, subject=subject)
    assert len(table) == len(keys)
    assert facts["decision_logs_equal"]
    assert facts["tokens_equal"]
    elsewhere = ModelSubject(tiny_model, MODEL, CPU)
    says = "was measured on a CUDA device that is not there, CuPy 0, and this check runs on the CPU"
    with pytest.raises(InputError, match=says):
        check_alone(made, plan, tmp_path, lambda *_: None, subject=elsewhere)


def test_a_calibration_of_the_cpu_is_not_checked_on_a_device(tmp_path: Path) -> None:
    trace = joined([TOY, TOY])
    subject = DrivenSubject(generated_model((3, 4, 16, 24)), trace, cuda())
    plan = Plan(EFFORT, requests=1, tokens=3, slots=(2,), paces=(1.0,), repeats=1, items=0)
    known = made_up().model_copy(update={"model": subject.facts})
    says = "was measured on the CPU, and this check runs on a CUDA device .* with --device cuda"
    with pytest.raises(InputError, match=says):
        check_alone(known, plan, tmp_path, lambda *_: None, subject=subject)
