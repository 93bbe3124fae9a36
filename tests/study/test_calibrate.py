from dataclasses import replace
from pathlib import Path

from offsim.calibration.replicates import replicate
from offsim.calibration.uncertainty import floats
from offsim.codec import codec_named
from offsim.policy.policy import Policy
from offsim.simulate import simulate
from offsim.simulate.band import BANDED, band
from offsim.study.calibrate import Calibrator, Effort
from offsim.study.samplers import MISS_SECONDS
from offsim.study.subject import DrivenSubject
from offsim.testbed.generated import generated_model
from offsim.trace.cut import cut, joined
from tests.builders import TOY

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
    assert not any("bound" in path or "ratio" in path for path in varied)
    assert floats(replicate(made, 2)).keys() == floats(made).keys()
    assert len(made.inner_runs) == 2 + len(MISS_SECONDS) + 2 * len(KEYS)
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
