from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import PreTrainedModel

from offsim.accuracy import Places, Scope, injected
from offsim.errors import FormatError, InputError
from offsim.study.paper.design import PARTS, Cell, entries
from offsim.study.paper.folder import Outcome, outcome_path
from offsim.study.paper.plan import Plan
from offsim.study.paper.results import Results
from offsim.study.paper.run import Ground, _with_time_left, measure
from offsim.study.paper.study import paper_study
from offsim.study.paper.uneven import Uneven, UnevenTable
from offsim.trace.statistics import usage
from tests.study.paper.made import PLAN, made

TINY = Plan(mixed=1, chains=2, seeds=2, sequences=2, length=16, requests=2, tokens=2)


def ground(model: PreTrainedModel, out: Path) -> Ground:
    return Ground(model, "tiny", TINY, out)


@pytest.fixture
def one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A design whose part 5 has one cell."""
    whole = PARTS["5"]
    monkeypatch.setitem(PARTS, "5", lambda depth: islice(whole(depth), 1))  # type: ignore[arg-type]


@pytest.mark.usefixtures("one_cell")
def test_runs_are_resumed_to_the_same_bits(
    tiny_model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    measure(ground(tiny_model, whole), ["5"])
    inner, done = Ground.outcome, []

    def stops(self: Ground, cell: Cell, seed: int) -> Outcome:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append((cell.name, seed))
        return inner(self, cell, seed)

    monkeypatch.setattr(Ground, "outcome", stops)
    with pytest.raises(KeyboardInterrupt):
        measure(ground(tiny_model, cut), ["5"])
    monkeypatch.setattr(Ground, "outcome", inner)
    kept = {path.name: path.read_bytes() for path in (cut / "runs").iterdir()}
    assert len(kept) == 2  # one run and the one without an error; nothing half-written
    measure(ground(tiny_model, cut), ["5"])
    assert all((cut / "runs" / name).read_bytes() == text for name, text in kept.items())
    known = entries("5", ground(tiny_model, cut).depth)
    one, two = Results(whole, TINY), Results(cut, TINY)
    for entry in known:
        for score in ("ica", "pia", "kl"):
            assert np.array_equal(one.after(entry.cell, score), two.after(entry.cell, score))  # type: ignore[arg-type]


@pytest.mark.usefixtures("one_cell")
def test_a_whole_study_leaves_its_tables(tiny_model: PreTrainedModel, tmp_path: Path) -> None:
    told: list[str] = []
    facts = paper_study(
        tiny_model, "tiny", TINY, tmp_path, ["5"], lambda what, _: told.append(what)
    )
    assert facts["parts"]["5"]["measured"] == facts["parts"]["5"]["cells"] == 1  # type: ignore[index]
    assert facts["parts"]["6"]["measured"] == 0  # type: ignore[index]
    assert any("of" in what and "left" in what for what in told)
    cells = pd.read_csv(tmp_path / "cells.csv", dtype={"part": str})
    assert set(cells["part"]) == {"5"}
    assert (cells["items"] == 11).all()
    assert (cells["seeds"] == 2).all()


def test_two_bounds_are_measured_once_and_go_on(
    tiny_model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = ground(tiny_model, tmp_path).identity.digest
    scopes = {"hot tight, cold loose": Scope("top2:all")}
    tables = tuple(
        UnevenTable(
            name=name, scope=scope, alpha=0.8, tight=0.1, loose=1.2, bytes=99, uniform_bytes=100
        )
        for name, scope in scopes.items()
    )
    found = Uneven(model=digest, codec="cuszp", weights=200, tables=tables)
    monkeypatch.setattr("offsim.study.paper.run.uneven_of", lambda *_: found)
    facts = paper_study(tiny_model, "tiny", TINY, tmp_path, ["uneven"])
    assert facts["parts"]["uneven"]["measured"] == 2  # type: ignore[index]
    kept = {path.name: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    monkeypatch.setattr("offsim.study.paper.run.uneven_of", lambda *_: pytest.fail("again"))
    entry = measure(ground(tiny_model, tmp_path), ["uneven"])[1]
    assert {path.name: path.read_bytes() for path in (tmp_path / "runs").iterdir()} == kept
    (run,) = Results(tmp_path, TINY).runs(entry.cell)
    errors = entry.cell.errors(0)
    own = ground(tiny_model, tmp_path)
    with injected(tiny_model, *errors, usage=usage(own.trace)) as handler:
        kl = own.texts.read(tiny_model).kl
    assert run.kl == pytest.approx(kl, rel=1e-4)
    hot = Scope("top2:all").mask(Places(3, 4, usage(own.trace)))
    assert handler.largest[hot].max() < handler.largest[~hot].min()
    comparisons = pd.read_csv(tmp_path / "comparisons.csv")
    assert comparisons["second"].tolist() == ["hot tight, cold loose"]
    path = tmp_path / "uneven.json"
    path.write_text(path.read_text().replace(digest, "0" * 16))
    with pytest.raises(FormatError, match=r"uneven\.json: it is of another model"):
        measure(ground(tiny_model, tmp_path), ["uneven"])


def test_a_part_that_is_none_is_refused(tiny_model: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no part '2'; it has 6, 7"):
        measure(ground(tiny_model, tmp_path), ["2"])


def test_runs_with_other_items_are_refused(tmp_path: Path) -> None:
    cell = made(tmp_path, ("5",), lambda _: 0.5)[0].cell
    path = outcome_path(tmp_path, cell.name, 0)
    path.write_text(path.read_text().replace('"ica":"', '"ica":"1'))
    with pytest.raises(FormatError, match=r"it has 441 items .* where the plan has 440"):
        Results(tmp_path, PLAN).runs(cell)


def test_the_time_left_is_that_of_the_runs_so_far() -> None:
    told: list[tuple[str, float]] = []
    now = iter([0.0, 240.0, 500.0])
    tell = _with_time_left(lambda *said: told.append(said), 8, lambda: next(now))
    tell("a", 0)
    tell("b", 2)
    tell("c", 7)
    assert told == [
        ("a (1 of 8)", 0.0),
        ("b (3 of 8, 12 min left)", 0.25),
        ("c (8 of 8, 1 min left)", 0.875),
    ]
