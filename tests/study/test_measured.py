from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.record.log import read_log
from offsim.record.table import table_of
from offsim.simulate import simulate
from offsim.study.held_out import by_token, facts, overall
from offsim.study.measured import (
    Engine,
    demand_of,
    fit_all,
    fitted_rows,
    held_out,
    model_of,
    predicted,
)
from offsim.trace import Trace
from offsim.trace.importers import Options, importer_named
from tests.builders import TOY

from .logs import BYTES, known, logged, routed

TRACE = routed()
ENGINE = Engine(30 * BYTES)
MACHINE = known(TRACE)
LOG = logged(TRACE, ENGINE, MACHINE)


@pytest.mark.parametrize(("scope", "slots"), [("layer", 4), ("global", 5)])
def test_a_capacity_in_slots_is_the_ordinary_simulation(scope: str, slots: int) -> None:
    engine = Engine(slots, in_slots=True, scope=scope)  # type: ignore[arg-type]
    tokens, label = predicted(TRACE, engine, model_of(TRACE), MACHINE)
    policy = Policy(cache="lru", slots=slots, scope=scope)  # type: ignore[arg-type]
    table = table_of(simulate(TRACE, policy, MACHINE))
    wall = (table.end - table.start)[table.decode] / 1e12
    np.testing.assert_array_equal(tokens["wall_s"], wall)
    np.testing.assert_array_equal(tokens["hits"], table.hits[table.decode])
    assert label == "SIMULATED"
    parts = tokens[["compute_s", "stall_s", "mgmt_s"]].sum(axis=1)
    np.testing.assert_allclose(parts, tokens["wall_s"])


def test_a_capacity_in_bytes_need_not_be_whole_slots() -> None:
    same, _ = predicted(TRACE, Engine(30 * BYTES), model_of(TRACE), MACHINE)
    more, _ = predicted(TRACE, Engine(30 * BYTES + BYTES - 1), model_of(TRACE), MACHINE)
    slots, _ = predicted(TRACE, Engine(5, in_slots=True), model_of(TRACE), MACHINE)
    assert same.equals(more)
    assert same.equals(slots)  # 5 slots of 6 layers


def test_what_is_loaded_is_what_the_simulation_reads() -> None:
    demand = demand_of(TRACE, ENGINE, model_of(TRACE))
    tokens, _ = predicted(TRACE, ENGINE, model_of(TRACE), MACHINE)
    np.testing.assert_array_equal(demand.nbytes, tokens["read_bytes"])
    np.testing.assert_array_equal(demand.loads, tokens["lookups"] - tokens["hits"])
    assert (demand.layers <= demand.loads).all()
    assert (demand.layers <= TRACE.layers).all()


def test_which_rows_are_fitted_on() -> None:
    assert fitted_rows(5, "first").tolist() == [True, True, False, False, False]
    alternate = fitted_rows(20, "alternate")
    assert alternate.tolist() == [True] * 8 + [False] * 8 + [True] * 4


@pytest.mark.parametrize("split", ["first", "alternate"])
def test_a_simulated_run_is_predicted(split: str) -> None:
    found = held_out(LOG, TRACE, ENGINE, model=model_of(TRACE), split=split)  # type: ignore[arg-type]
    held = found.held
    for name in ("wall_s", "compute_s", "stall_s", "mgmt_s", "read_bytes", "hits", "hit_share"):
        np.testing.assert_allclose(
            held[f"{name}_simulated"], held[f"{name}_measured"], rtol=1e-6, atol=1e-9
        )
    table = overall(found).set_index("metric")
    assert abs(table["error"]).max() < 1e-6
    mean = float(found.tokens.loc[found.tokens["fitted"], "wall_s_measured"].mean())
    assert table.loc["mean_s", "baseline"] == table.loc["p95_s", "baseline"] == mean
    assert table.loc["tokens_per_s", "baseline"] == pytest.approx(1 / mean)
    tokens = by_token(found).set_index("part")
    assert tokens.loc["stall_s", "correlation"] == pytest.approx(1)
    assert np.isnan(tokens.loc["compute_s", "correlation"])  # the same in every token
    assert tokens.loc["stall_s", "simulated_off"] < 1e-6 < tokens.loc["stall_s", "baseline_off"]
    told = facts(found)
    assert (told["label"], told["tokens_compared"]) == ("SIMULATED", len(held))
    assert told["by_token"]["compute_s"]["correlation"] is None
    assert told["fitted"]["tokens"] == LOG.tokens - len(held)


def test_a_calibration_that_is_given_leaves_no_token_out() -> None:
    fitted = fit_all(LOG, TRACE, ENGINE, model=model_of(TRACE))
    found = held_out(LOG, TRACE, ENGINE, model=model_of(TRACE), calibration=fitted.calibration)
    assert len(found.held) == LOG.tokens
    assert found.known is None
    assert facts(found)["fitted"] is None
    assert np.isnan(overall(found)["baseline"]).all()


def test_a_log_of_the_whole_time_alone() -> None:
    log = replace(LOG, compute_s=None, stall_s=None, mgmt_s=None, read_bytes=None, hit_share=None)
    found = held_out(log, TRACE, ENGINE, model=model_of(TRACE))
    assert overall(found)["metric"].tolist() == ["mean_s", "median_s", "p95_s", "tokens_per_s"]
    assert by_token(found)["part"].tolist() == ["wall_s"]
    assert abs(overall(found)["error"]).max() < 0.05


def test_what_does_not_fit_together_is_refused() -> None:
    model = model_of(TRACE)
    with pytest.raises(InputError, match=r"made.csv has 35 tokens and the trace 4 decode steps"):
        held_out(LOG, TOY, ENGINE, model=model_of(TOY, 10))
    with pytest.raises(InputError, match="does not say how large an expert is"):
        model_of(TOY)
    with pytest.raises(InputError, match=r"token 1 has 99 hits and the trace 12 lookups"):
        held_out(replace(LOG, hits=np.full(35, 99.0)), TRACE, ENGINE, model=model)
    with pytest.raises(InputError, match="pinned needs a profile"):
        held_out(LOG, TRACE, replace(ENGINE, cache="pinned"), model=model)
    with pytest.raises(InputError, match="no cache is called 'best'"):
        held_out(LOG, TRACE, replace(ENGINE, cache="best"), model=model)
    short = replace(LOG, **{
        name: array[:8] for name, array in vars(LOG).items() if isinstance(array, np.ndarray)
    })  # fmt: skip
    with pytest.raises(InputError, match="all of its 8 tokens are fitted on"):
        held_out(short, _first(TRACE, 13), ENGINE, model=model, split="alternate")


def _first(trace: Trace, tokens: int) -> Trace:
    return Trace(trace.info, **{name: array[:tokens] for name, array in trace.arrays().items()})


def test_engines_in_words() -> None:
    assert str(Engine(3000 << 20)) == "lru 3000 MiB, one pool"
    assert str(Engine(4, True, "lfu", "layer", 2)) == "lfu 4 a layer, 2 channels"


def test_the_run_on_a_phone(shared: Path) -> None:
    """gpt-oss-120b of BigMoeOnEdge; docs/accuracy.md has the figures."""
    folder = shared / "traces"
    paths = [folder / f"bigmoeonedge_gpt-oss-120b.{part}.csv" for part in ("route", "metrics")]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"needs {path.name} in shared/traces")
    trace = importer_named("bigmoe").read(paths[0], Options())
    log, engine, model = read_log(paths[1]), Engine(3000 << 20), model_of(trace)
    found = held_out(log, trace, engine, model=model)
    tokens = found.tokens
    # Every load of every token: the engine reads whole pages, 0.1 % more.
    np.testing.assert_array_equal(tokens["hits_simulated"], tokens["hits_measured"])
    np.testing.assert_allclose(
        tokens["read_bytes_simulated"], tokens["read_bytes_measured"], rtol=2e-3
    )
    table, parts = overall(found).set_index("metric"), by_token(found).set_index("part")
    assert table.loc["hit_rate_so_far", "simulated"] == pytest.approx(0.32408, abs=5e-6)
    assert abs(table.loc["stall_s", "error"]) < 0.05
    assert parts.loc["stall_s", "correlation"] > 0.9
    assert parts.loc["stall_s", "simulated_off"] < parts.loc["stall_s", "baseline_off"] / 3
    # Compute is not predicted: the phone pages its other weights in again, now and then.
    assert table.loc["compute_s", "error"] < -0.3
