from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from offsim.calibration.from_run import Fitted, fit_run
from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.record.log import RunLog
from offsim.study.measured import Engine, demand_of, model_of
from offsim.trace import Trace
from tests.study.logs import (
    BYTES,
    COMPUTE_S,
    DENSE_S,
    EXPERT_S,
    LAYERS,
    LOAD_S,
    SUBMIT_S,
    known,
    logged,
    routed,
)

ENGINE = Engine(30 * BYTES)
TRACE = routed()
LOG = logged(TRACE, ENGINE, known(TRACE))


def fit(log: RunLog = LOG, trace: Trace = TRACE, engine: Engine = ENGINE, **more: object) -> Fitted:
    model = model_of(trace)
    rows = np.arange(log.tokens) < log.tokens // 2
    demand = demand_of(trace, engine, model)
    return fit_run(log, demand, model, rows, engine.channels, **more)  # type: ignore[arg-type]


def test_parameters_are_found_again() -> None:
    fitted = fit()
    assert (fitted.tokens, fitted.loads_from) == (17, "stall")
    assert fitted.load_s == pytest.approx(LOAD_S, rel=1e-6)
    assert fitted.submit_s == pytest.approx(SUBMIT_S, rel=1e-6)
    assert fitted.expert_s == pytest.approx(EXPERT_S, rel=1e-6)
    assert fitted.compute_s == pytest.approx(COMPUTE_S, rel=1e-6)
    assert fitted.residual < 1e-6
    made = fitted.calibration
    assert made.measured
    assert made.link.bytes_per_s == pytest.approx(BYTES / LOAD_S)
    assert made.link.latency_s == 0
    assert made.compute.dense[0].seconds.value == pytest.approx(DENSE_S)
    assert made.codec("raw", 0).blob_bytes == [[BYTES] * 16] * LAYERS
    assert made.model.expert_bytes == BYTES
    assert Calibration.model_validate(made.model_dump()) == made
    assert str(fitted).startswith("17 tokens, compute 30 ms a token, a load 3 ms (0.000333 GB/s")
    day = date(2026, 7, 15)
    assert fit(measured_on=day).calibration.machine.measured_on == day


def test_layers_of_other_sizes_tell_latency_and_bandwidth_apart() -> None:
    trace = routed(80, sizes=(1000, 1000, 2000, 2000, 4000, 4000))
    engine = Engine(60 * BYTES)
    machine = known(trace, latency_s=0.001)
    made = fit(logged(trace, engine, machine), trace, engine).calibration.link
    assert made.latency_s == pytest.approx(0.001, rel=0.01)
    assert made.bytes_per_s == pytest.approx(machine.link.bytes_per_s, rel=0.01)


def test_reads_tell_it_over_several_channels() -> None:
    engine = replace(ENGINE, channels=2)
    demand = demand_of(TRACE, engine, model_of(TRACE))
    log = replace(LOG, io_s=demand.loads * 0.004)
    fitted = fit(log, engine=engine)
    assert (fitted.loads_from, fitted.expert_s) == ("io", 0)
    assert fitted.load_s == pytest.approx(0.004)
    with pytest.raises(InputError, match="over several channels it takes io_ms"):
        fit(engine=engine)


def test_reads_tell_it_where_nothing_was_waited_for() -> None:
    demand = demand_of(TRACE, ENGINE, model_of(TRACE))
    log = replace(LOG, stall_s=np.zeros(LOG.tokens), mgmt_s=None, io_s=demand.loads * 0.004)
    log = replace(log, compute_s=log.wall_s)
    assert fit(log).loads_from == "io"


def test_the_whole_time_alone_is_split_by_the_bytes() -> None:
    log = RunLog("made.csv", LOG.wall_s)
    fitted = fit(log)
    assert fitted.loads_from == "wall"
    assert (fitted.submit_s, fitted.expert_s) == (0, 0)
    # What is hidden counts as compute that is not there, and asking as part of a load.
    assert fitted.compute_s == pytest.approx(COMPUTE_S, rel=0.1)
    assert fitted.load_s == pytest.approx(LOAD_S + SUBMIT_S, rel=0.1)


def test_the_plain_mean_has_pauses_in_it() -> None:
    paused = LOG.wall_s.copy()
    paused[3] += 17.0
    assert LOG.compute_s is not None
    log = replace(LOG, wall_s=paused, compute_s=LOG.compute_s + (paused - LOG.wall_s))
    assert fit(log).compute_s == pytest.approx(COMPUTE_S)
    assert fit(log, centre="mean").compute_s == pytest.approx(COMPUTE_S + 1.0)
    assert fit(log, centre="mean").submit_s == pytest.approx(SUBMIT_S)


def test_no_other_row_is_looked_at() -> None:
    rows = np.arange(LOG.tokens) >= LOG.tokens // 2
    columns = {
        name: np.where(rows, 1e3, array)
        for name, array in vars(LOG).items()
        if isinstance(array, np.ndarray)
    }
    assert fit(replace(LOG, **columns)) == fit()


def test_what_cannot_be_fitted_is_refused() -> None:
    model, demand = model_of(TRACE), demand_of(TRACE, ENGINE, model_of(TRACE))
    few = np.arange(LOG.tokens) < 3
    with pytest.raises(InputError, match="3 tokens to fit on; it takes at least 4"):
        fit_run(LOG, demand, model, few)
    with pytest.raises(InputError, match="no expert is loaded in the 17 tokens"):
        fit(engine=Engine(16, in_slots=True), trace=cut_warm())
    with pytest.raises(InputError, match="no time grows with the bytes"):
        fit(replace(LOG, stall_s=np.zeros(LOG.tokens), compute_s=LOG.wall_s, mgmt_s=None))


def cut_warm() -> Trace:
    """The same tokens, all experts already loaded by the prompt."""
    arrays = TRACE.arrays()
    arrays["experts"] = np.tile(arrays["experts"][:1], (TRACE.tokens, 1, 1))
    return Trace(TRACE.info, **arrays)
