"""Calibrating on a checkpoint, and what is predicted with it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from offsim.calibration.schema import Calibration
from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.files import read_yaml, write_yaml
from offsim.model.experts import expert_modules
from offsim.model.sampling import Sampling
from offsim.record import metrics_of
from offsim.runtime.arena import Arena
from offsim.simulate import simulate
from offsim.study.calibrate import Effort
from offsim.study.checkpoint import (
    CheckpointSubject,
    checkpoint_subject,
    dense_bytes,
    recorded_to,
)
from offsim.study.own_calibration import calibrate_in_parts, calibrate_own
from offsim.study.plan import Plan
from offsim.study.study import check_alone
from offsim.trace import load_trace
from tests.families import EXPERTS, MOE_LAYERS, family

EFFORT = Effort(rounds=1, requests=2, tokens=4, repeats=2)
ROUNDS = Effort(rounds=3, requests=1, tokens=4, repeats=1)
"""Enough of them for a band."""
PLAN = Plan(EFFORT, requests=9, tokens=4, slots=(2,), paces=(1.0,), repeats=1, items=0)
KEYS = [("raw", 0.0), ("cuszp", 2.0**-6)]
PROMPTS = [[5, 6, 7, 90, 17], [99, 3], [1, 2, 3, 4, 5, 6], [44, 100, 3]]
NAMES = ("deepseek-v3", "gpt-oss")
PACE = 5e6


def opened(folder: Path, sampling: Sampling | None = None) -> CheckpointSubject:
    return checkpoint_subject(folder / "tiny", folder / "p.jsonl", 4, sampling=sampling)


def saved(name: str, folder: Path) -> Path:
    family(name).to(torch.bfloat16).save_pretrained(folder / "tiny")
    (folder / "p.jsonl").write_text("\n".join(json.dumps({"ids": ids}) for ids in PROMPTS))
    return folder


@pytest.fixture(scope="module", params=NAMES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Calibration]:
    """A family, the folder of its checkpoint, and a calibration on all of it."""
    folder = saved(request.param, tmp_path_factory.mktemp("own"))
    figures = calibrate_own(opened(folder), KEYS, EFFORT)
    write_yaml(folder / "machine.yaml", figures)
    return request.param, folder, figures


def test_a_calibration_is_of_the_checkpoint(made: tuple[str, Path, Calibration]) -> None:
    name, folder, figures = made
    assert figures == read_yaml(folder / "machine.yaml", Calibration)
    assert figures.model == opened(folder).facts
    assert (figures.model.name, figures.model.layers) == ("tiny", MOE_LAYERS[name])
    assert figures.measured
    for codec, key in zip(figures.codecs, KEYS, strict=True):
        store = opened(folder).store(codec_named(key[0]), key[1])
        assert codec.matrix_bytes == store.matrix_bytes
        assert codec.sampled is None
        assert codec.largest_error <= codec.bound
    assert figures.compute.expert[0].seconds.value > 0
    assert figures.compute.attention_s is not None


@pytest.mark.parametrize("sampling", [None, Sampling(0.8, 0.9, seed=4)])
def test_what_is_recorded_is_simulated_and_run_alike(
    made: tuple[str, Path, Calibration], tmp_path: Path, sampling: Sampling | None
) -> None:
    _, folder, figures = made
    subject = opened(folder, sampling)
    recorded_to(tmp_path / "t.safetensors", subject, PROMPTS, 4)
    trace = load_trace(tmp_path / "t.safetensors")
    assert ("drawn at temperature 0.8" in trace.info.source) == (sampling is not None)
    store = subject.store(codec_named("raw"), 0.0)
    policy = store.policy(slots=3)
    simulated = simulate(trace, policy, figures, PACE)
    run = subject.run(store, policy, PROMPTS, 4, PACE)
    assert simulated.label == "SIMULATED"
    assert run.record.decisions() == simulated.decisions()
    assert run.tokens == subject.recorded(store, PROMPTS, 4).tokens
    greedy = opened(folder).recorded(store, PROMPTS, 4).tokens
    assert (run.tokens == greedy) == (sampling is None)
    predicted, measured = metrics_of(simulated), metrics_of(run.record)
    assert predicted.link_bytes == measured.link_bytes
    assert 0.2 < predicted.tpot_s / measured.tpot_s < 5, "of the same order, whoever else works"


def test_a_check_finds_equal_decisions(made: tuple[str, Path, Calibration], tmp_path: Path) -> None:
    _, folder, figures = made
    _, facts = check_alone(figures, PLAN, tmp_path, lambda *_: None, subject=opened(folder))
    assert facts["policies_checked"] == len(KEYS)
    assert facts["predictions"] == "SIMULATED"
    assert facts["decision_logs_equal"] is True
    assert facts["tokens_equal"] is True
    assert facts["bytes_equal"] is True


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are measured with two layers."""
    monkeypatch.setattr("offsim.study.subject.FEWEST_LAYERS", 2)
    monkeypatch.setattr("offsim.testbed.generated.last_level_cache", lambda: 1)


@pytest.mark.usefixtures("few_layers")
def test_sizes_of_a_sample_and_times_of_the_first_layers(tmp_path: Path) -> None:
    folder = saved("gpt-oss", tmp_path)
    whole = opened(folder)
    subject = opened(folder)
    told: list[float] = []
    figures = calibrate_in_parts(
        subject, KEYS, ROUNDS, 7, tmp_path / "notes", lambda _, share: told.append(share)
    )
    assert len(expert_modules(subject.model)) == 2
    assert figures.model == whole.facts
    assert not figures.measured
    raw, packed = figures.codecs
    assert (raw.label, raw.sampled, raw.ratio) == ("MEASURED", None, 1.0)
    assert packed.sampled is not None
    assert (packed.label, packed.sampled.experts) == ("ESTIMATED", 7)
    assert np.shape(packed.matrix_bytes) == (3, EXPERTS, 3)
    assert figures.replicates is not None
    assert told == sorted(told)
    write_yaml(tmp_path / "machine.yaml", figures)
    assert read_yaml(tmp_path / "machine.yaml", Calibration) == figures
    recorded_to(tmp_path / "t.safetensors", whole, PROMPTS, 4)
    policy = whole.store(codec_named("cuszp"), 2.0**-6).policy(slots=3)
    simulated = simulate(load_trace(tmp_path / "t.safetensors"), policy, figures, PACE)
    assert simulated.label == "ESTIMATED"
    _, facts = check_alone(figures, PLAN, tmp_path / "out", lambda *_: None, subject=whole)
    assert (facts["predictions"], facts["decision_logs_equal"]) == ("ESTIMATED", True)


@pytest.mark.usefixtures("few_layers")
def test_sizes_of_all_experts_are_exact_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("qwen3-moe", tmp_path)
    store = opened(folder).store(codec_named("cuszp"), 2.0**-6)

    def stop(what: str, share: float) -> None:
        if share > 0.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_in_parts(opened(folder), KEYS, EFFORT, 24, tmp_path / "notes", stop)
    noted = sum(
        len(path.read_text().splitlines()) for path in (tmp_path / "notes").rglob("*.jsonl")
    )
    assert 0 < noted < 24
    compressed: list[str] = []
    figures = calibrate_in_parts(
        opened(folder),
        KEYS,
        Effort(rounds=1, requests=1, tokens=4, repeats=1),
        24,
        tmp_path / "notes",
        lambda what, _: compressed.append(what),
    )
    assert sum("of MoE layer" in what for what in compressed) == 24 - noted
    assert figures.measured
    assert figures.codecs[1].matrix_bytes == store.matrix_bytes
    assert figures.codecs[1].largest_error == store.largest_error
    assert figures.codecs[1].ratio == pytest.approx(store.ratio)


def test_what_has_no_room_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = opened(saved("mixtral", tmp_path))
    shape = subject.experts.shape
    slots = Arena.bytes_of(shape, 24, EXPERTS)
    blobs = subject.store(codec_named("cuszp"), 2.0**-6).nbytes
    raw = 24 * shape.bytes

    def have(nbytes: int) -> None:
        room = dense_bytes(subject.model) + nbytes
        monkeypatch.setattr("offsim.study.checkpoint.usual_memory", lambda: room)

    have(slots + raw + 24 * (blobs // 24 + 100))
    subject.check_room(KEYS)
    have(slots + raw + blobs // 2)
    three = [*KEYS[:1], ("rtn-int4", 0.0), KEYS[1]]
    with pytest.raises(InputError, match=r"there is room for .*; give --experts N: sizes of N"):
        calibrate_own(subject, KEYS, EFFORT)
    with pytest.raises(InputError, match=r"ask for fewer --codec \(raw, rtn-int4 would fit\), or "):
        calibrate_own(subject, three, EFFORT)
    have(slots - 1)
    with pytest.raises(InputError, match=r"24 experts of 3 MoE layers take .* it takes a machine"):
        calibrate_in_parts(subject, KEYS, EFFORT, 3)


def test_one_moe_layer_is_refused(tmp_path: Path) -> None:
    subject = opened(saved("olmoe", tmp_path)).first(1)
    with pytest.raises(InputError, match="tiny has one MoE layer, and compute is measured from"):
        calibrate_own(subject, KEYS, EFFORT)
