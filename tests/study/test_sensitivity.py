"""The run: resumable, refusing what is not its own; and what comes out of known sensitivities."""

import json
import re
from datetime import date
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import PreTrainedModel

from offsim.accuracy import Texts, WeightError, embedded_texts, injected
from offsim.accuracy.scopes import Scope
from offsim.accuracy.sensitivity import Sensitivity
from offsim.codec.bounds import Bound
from offsim.errors import FormatError, InputError
from offsim.files import read_json
from offsim.policy.bounds import Bounds, Rule
from offsim.study.sensitivity import DESIGN, DONE, TIMED, ModelMeter, Timing, sensitivity, timed
from offsim.study.sensitivity_design import Trial

from .sensitive import EXPERTS, LAYERS, MATRICES, QuadraticMeter, options

FEW = 0.01
WARM = TIMED + 1
"""Trials that are only timed."""


@pytest.fixture(autouse=True)
def _fixed_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A design must not depend on how fast this machine is at the moment."""

    def fixed(_options: object, meter: QuadraticMeter, _progress: object) -> Timing:
        meter.measured += ["timed"] * WARM
        return Timing(cell_s=0.5, ask_s=0.5)

    monkeypatch.setattr("offsim.study.sensitivity.timed", fixed)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_known_law_is_found_and_foretold(tmp_path: Path) -> None:
    found = sensitivity(tmp_path, options(5), QuadraticMeter())
    for layer, cost in zip(found.terms.layers, LAYERS, strict=True):
        assert [rung.mean for rung in layer.kl] == pytest.approx(
            [cost * value**2 for value in found.ladder]
        )
        assert layer.experts == pytest.approx(tuple(EXPERTS))
        assert layer.matrices == pytest.approx(tuple(MATRICES))
    assert found.additivity is not None
    assert found.additivity.worst < 1e-6
    assert found.additivity.kendall_tau == 1.0
    assert {joint.varied for joint in found.joints} == {"layers", "matrices", "experts"}
    assert all(rise.rises and not rise.falls for rise in found.rises)
    assert found == read_json(tmp_path / "sensitivity.json", Sensitivity)
    whole = found.predict(Bounds(default=Bound(0.25, "sigma"))).kl
    assert whole.low < whole.mean < whole.high
    assert whole.mean == pytest.approx(LAYERS.sum() / 16)


def test_codecs_that_take_no_bound_have_terms_of_their_own(tmp_path: Path) -> None:
    found = sensitivity(tmp_path, options(20, also=("rtn-int8", "rtn-int4")), QuadraticMeter())
    for one, size in zip(found.unbounded, (2.0**-6, 2.0**-3), strict=True):
        assert [kl.mean for kl in one.kl] == pytest.approx([cost * size**2 for cost in LAYERS])
    mixed = [joint for joint in found.joints if joint.varied == "codecs"]
    assert mixed
    assert all(joint.predicted.mean == pytest.approx(joint.kl.mean) for joint in mixed)
    assert found == read_json(tmp_path / "sensitivity.json", Sensitivity)
    table = Bounds(
        default=Bound(0.25, "sigma"),
        rules=(Rule(codec="rtn-int4", layers=(1,)), Rule(codec="raw", layers=(2,))),
    )
    assert found.predict(table).kl.mean == pytest.approx(1 * 0.25**2 + 4 * 0.125**2)
    with pytest.raises(InputError, match="does not say what rtn-int4:group=32 loses"):
        found.predict(Bounds(default=Bound(1), rules=(Rule(codec="rtn-int4:group=32"),)))


def test_losses_that_do_not_add_up_are_said_not_to(tmp_path: Path) -> None:
    found = sensitivity(tmp_path, options(5), QuadraticMeter(most=0.2))
    judged = found.additivity
    assert judged is not None
    assert judged.worst > judged.tolerance
    assert judged.regimes[-1].bias > 0.25  # a sum exceeds what cannot exceed 0.2
    assert 0 < judged.holds_up_to < max(joint.predicted.mean for joint in found.joints)


def test_the_file_says_where_and_when_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(step=0.5)
    monkeypatch.setattr("offsim.study.sensitivity.time.perf_counter", lambda: next(clock))
    found = sensitivity(tmp_path, options(FEW), QuadraticMeter())
    assert found.machine is not None
    assert found.machine.measured_on == date.today()
    assert found.machine.cores >= 1
    assert found.offsim == found.machine.versions["offsim"]
    trials = (tmp_path / DONE).read_text().splitlines()
    assert found.seconds == pytest.approx(0.5 * len(trials))
    # A folder and a file from before these were kept go on.
    older = [re.sub(r',"seconds":[^}]*', "", line) for line in trials]
    (tmp_path / DONE).write_text("\n".join(older) + "\n")
    assert sensitivity(tmp_path, options(FEW), QuadraticMeter()).seconds is None
    path = tmp_path / "sensitivity.json"
    file = json.loads(path.read_text())
    path.write_text(json.dumps({k: file[k] for k in file if k not in ("offsim", "machine")}))
    assert read_json(path, Sensitivity).machine is None


def test_accuracy_is_asked_of_joint_injections_alone(tmp_path: Path) -> None:
    found = sensitivity(tmp_path, options(FEW), QuadraticMeter())
    drops = [joint.ica_drop.mean for joint in found.joints if joint.ica_drop]
    assert len(drops) == len(found.joints)
    assert max(drops) > 0
    table = pd.read_csv(tmp_path / "joints.csv")
    assert table["ica_drop_measured"].tolist() == pytest.approx(drops)
    cells = pd.read_csv(tmp_path / "cells.csv")
    assert len(cells) == len(found.cells)
    assert cells["kl_estimated"].to_numpy() == pytest.approx(cells["kl_measured"].to_numpy())


def test_what_was_cut_off_goes_on_to_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()  # every trial takes a second
    monkeypatch.setattr("offsim.study.sensitivity.time.perf_counter", lambda: next(clock))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    sensitivity(whole, options(FEW), QuadraticMeter())
    with pytest.raises(KeyboardInterrupt):
        sensitivity(cut, options(FEW), QuadraticMeter(after=WARM + 4))
    assert sorted(contents(cut)) == [DESIGN, DONE]
    said: list[str] = []
    meter = QuadraticMeter()
    sensitivity(cut, options(FEW), meter, announce=said.append)
    assert "4 trials are there already" in said[0]
    assert len(meter.measured) == len((whole / DONE).read_text().splitlines()) - 4
    assert contents(cut) == contents(whole)
    again = QuadraticMeter()
    sensitivity(cut, options(FEW), again)
    assert again.measured == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "normal"}, "whose source is uniform, not normal"),
        ({"seed": 1}, "whose seed is 0, not 1"),
        ({"by": "layer"}, "whose by is expert, not layer"),
        ({"bounds": ("sigma:0.1", "sigma:0.2")}, "whose bounds is sigma:0.03125,"),
    ],
)
def test_a_folder_of_another_design_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    sensitivity(tmp_path, options(FEW), QuadraticMeter())
    before = contents(tmp_path)
    with pytest.raises(InputError, match=said):
        sensitivity(tmp_path, options(FEW, **changes), QuadraticMeter())
    assert contents(tmp_path) == before


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    sensitivity(tmp_path, options(FEW), QuadraticMeter())
    other = QuadraticMeter()
    other.model = other.model.model_copy(update={"name": "other"})
    with pytest.raises(InputError, match="whose model is toy, not other"):
        sensitivity(tmp_path, options(FEW), other)
    retrained = QuadraticMeter()
    retrained.unperturbed.nll[:] = 1.9
    with pytest.raises(InputError, match="another model of this name"):
        sensitivity(tmp_path, options(FEW), retrained)


@pytest.mark.parametrize("line", ["{", '{"key": "joint 99", "kl": [1.0], "nll": [1.0]}'])
def test_a_broken_or_foreign_table_is_refused(tmp_path: Path, line: str) -> None:
    sensitivity(tmp_path, options(FEW), QuadraticMeter())
    (tmp_path / DONE).write_text(line + "\n")
    with pytest.raises(InputError, match=r"trials\.jsonl"):
        sensitivity(tmp_path, options(FEW), QuadraticMeter())
    (tmp_path / DESIGN).write_text("{}")
    with pytest.raises(FormatError, match=r"design\.json"):
        sensitivity(tmp_path, options(FEW), QuadraticMeter())


def test_a_fall_beyond_the_interval_is_found(tmp_path: Path) -> None:
    class Falling(QuadraticMeter):
        def measure(self, trial: Trial, ask: bool):  # type: ignore[no-untyped-def]
            outcome = super().measure(trial, ask)
            if trial.key.startswith("layer:1 sigma:0.25"):
                outcome = outcome.model_copy(update={"kl": tuple(v / 100 for v in outcome.kl)})
            return outcome

    found = sensitivity(tmp_path, options(FEW, bounds=("sigma:0.125", "sigma:0.25")), Falling())
    assert [rise.rises for rise in found.rises] == [True, False, True]
    assert [list(map(str, rise.falls)) for rise in found.rises] == [[], ["sigma:0.25"], []]


def test_a_model_is_measured_with_the_errors_of_the_trial(tiny_model: PreTrainedModel) -> None:
    few = options(FEW, sequences=2, tokens=16, items=1)
    meter = ModelMeter("tiny", tiny_model, few)
    assert meter.usage.sum(1).tolist() == [2 * 16 * 2] * 3  # tokens times top-k
    assert meter.model.layers == 3
    error = WeightError(source="uniform", bound=Bound(0.2, "sigma"), scope=Scope("layer:1"), seed=4)
    found = meter.measure(Trial("one", (error,)), ask=True)
    texts = Texts(tiny_model, embedded_texts(2, 16, 0))
    with injected(tiny_model, error):
        read = texts.read(tiny_model)
    assert found.kl == pytest.approx(read.kl)
    assert found.nll == pytest.approx(read.nll)
    assert found.ica is not None
    assert len(found.ica) == len(meter.unperturbed.ica)
    nothing = meter.measure(Trial("none", ()), ask=False)
    assert np.abs(nothing.kl).max() == 0
    assert nothing.ica is None


def test_a_cell_and_the_items_are_timed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 27.0])  # warming up, a cell, and all with the items
    monkeypatch.setattr("offsim.study.sensitivity.time.perf_counter", lambda: next(clock))
    meter = QuadraticMeter()
    assert timed(options(), meter, lambda *_: None) == Timing(cell_s=2.0, ask_s=5.0)
    assert len(meter.measured) == WARM
