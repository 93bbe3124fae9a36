"""What another engine measured: fitted on one half of its tokens, predicted for the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from offsim.calibration.from_run import Centre, Demand, Fitted, Model, fit_run
from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.policy.decider import Decider
from offsim.policy.lookup import future_of, lookups_of
from offsim.policy.policy import Policy
from offsim.policy.registry import Scope, cache_of, eviction_named
from offsim.policy.transfer import Transfer
from offsim.record.events import Label
from offsim.record.log import Floats, RunLog
from offsim.record.table import PS, StepTable
from offsim.simulate.costs import Costs
from offsim.simulate.outcome import Outcome
from offsim.simulate.simulation import check_shapes, engine_named, planned, serial
from offsim.trace import DECODE, Trace, steps_of

Split = Literal["first", "alternate"]
Rows = npt.NDArray[np.bool_]
BLOCK = 8
"""Consecutive tokens that go to one side, where every other block is fitted on."""


@dataclass(frozen=True)
class Engine:
    """How an engine keeps and moves experts, as far as the simulator can follow it.

    It loads what is missed once a layer asks for it, and nothing ahead.

    Attributes:
        capacity: of all pools together: bytes, or experts of every layer where `in_slots`.
        in_slots: whether the capacity counts experts of a layer in place of bytes.
        cache: name of the eviction policy.
        scope: a pool for each layer, or one for all.
        channels: loads that move side by side.
    """

    capacity: int
    in_slots: bool = False
    cache: str = "lru"
    scope: Scope = "global"
    channels: int = 1

    @property
    def policy(self) -> Policy:
        """What of it a policy can say: all but a capacity in bytes."""
        slots = self.capacity if self.in_slots else 0
        transfer = Transfer(channels=self.channels)
        return Policy(cache=self.cache, slots=slots, scope=self.scope, transfer=transfer)

    def decider(self, trace: Trace, layer_bytes: Sequence[int]) -> Decider:
        """A fresh one, that will be asked what a trace asks.

        Raises:
            InputError: no cache has this name, or it needs what a log does not have.
        """
        pools = trace.layers if self.scope == "layer" else 1
        each = self.capacity * (trace.layers if self.in_slots else 1) // pools
        sizes = [1] * trace.layers if self.in_slots else layer_bytes
        future = future_of(trace) if eviction_named(self.cache).oracle else None
        cache = cache_of(self.cache, [each] * pools, lambda key: sizes[key[0]], future=future)
        return Decider(cache, None, None, lambda key: layer_bytes[key[0]])

    def __str__(self) -> str:
        size = f"{self.capacity} a layer" if self.in_slots else f"{self.capacity / 2**20:g} MiB"
        pool = ", one pool" if self.scope == "global" else ""
        channels = f", {self.channels} channels" if self.channels > 1 else ""
        return f"{self.cache} {size}{pool}{channels}"


def model_of(trace: Trace, expert_bytes: int | None = None) -> Model:
    """The model of a trace.

    Args:
        trace: the router's decisions.
        expert_bytes: of one expert as it is read; None for what the trace says of each layer.

    Raises:
        InputError: nothing says how large an expert is.
    """
    known = trace.info.layer_bytes
    if expert_bytes is not None:
        known = (expert_bytes,) * trace.layers
    if known is None:
        raise InputError("the trace does not say how large an expert is; give --expert-bytes")
    return Model(trace.info.model, known, trace.info.experts_per_layer, trace.top_k)


def demand_of(trace: Trace, engine: Engine, model: Model) -> Demand:
    """What each decode token of a trace loads under the cache of an engine; no time."""
    decider = engine.decider(trace, model.layer_bytes)
    sizes = np.array(model.layer_bytes, np.int64)
    misses = [len(decider.decide(lookup).misses) for lookup in lookups_of(trace)]
    loads = np.array(misses, np.int64).reshape(-1, trace.layers)[_decode_steps(trace)]
    return Demand(loads.sum(1), (loads > 0).sum(1), loads @ sizes)


def predicted(
    trace: Trace, engine: Engine, model: Model, calibration: Calibration
) -> tuple[pd.DataFrame, Label]:
    """The ordinary simulation of a whole trace, from an empty cache; its decode tokens.

    `offsim.simulate.simulate` with a cache whose capacity need not be whole slots of every layer.

    Returns:
        A row a decode token: `wall_s`, `compute_s` (neither waiting nor asking for loads),
        `stall_s`, `mgmt_s` (asking for loads), `read_bytes`, `lookups` and `hits`, and
        `hit_share`, 0..1, of all lookups so far, those of prompts included; and the label.

    Raises:
        InputError: trace and calibration are of different shapes, or the cache cannot be had.
    """
    check_shapes(trace, calibration)
    costs = Costs(calibration, engine.policy, None)
    decider = engine.decider(trace, model.layer_bytes)
    plan, _ = planned(trace, engine.policy, costs, None, None, decider)
    clock = engine_named("fast", costs.machine(), events=False)
    clocks = clock.advance(plan)
    label: Label = "SIMULATED" if calibration.measured else "ESTIMATED"
    outcome = Outcome(label, [plan], [clocks], serial(trace), clock.loads())
    return _tokens(outcome.table(), calibration.handover.submit_s.value), label


def _tokens(table: StepTable, submit_s: float) -> pd.DataFrame:
    """The decode steps of a simulation."""
    wall, stall = (table.end - table.start) / PS, table.stall.sum(1) / PS
    mgmt = submit_s * (table.lookups - table.hits)
    tokens = pd.DataFrame(
        {
            "wall_s": wall,
            "compute_s": wall - stall - mgmt,
            "stall_s": stall,
            "mgmt_s": mgmt,
            "read_bytes": table.demand_bytes,
            "lookups": table.lookups,
            "hits": table.hits,
            "hit_share": np.cumsum(table.hits) / np.cumsum(table.lookups),
        }
    )
    return tokens[table.decode].reset_index(drop=True)


def fitted_rows(tokens: int, split: Split) -> Rows:
    """[tokens] bool, which are fitted on: the first half, or every other block from the first."""
    places = np.arange(tokens)
    return places < tokens // 2 if split == "first" else places // BLOCK % 2 == 0


@dataclass(frozen=True)
class HeldOut:
    """A prediction held against the tokens that it was not fitted on.

    Attributes:
        tokens: a row a decode token: `fitted`, whether it was fitted on, `wall_measured_s` and
            `wall_simulated_s`, the same of each part and count that the log has.
        calibration: that predicted.
        fitted: how it was fitted; None where it was given.
        label: of the prediction.
    """

    tokens: pd.DataFrame
    calibration: Calibration
    fitted: Fitted | None
    label: Label

    @property
    def held(self) -> pd.DataFrame:
        """The tokens that were not fitted on."""
        return self.tokens[~self.tokens["fitted"]]

    @property
    def known(self) -> pd.DataFrame | None:
        """The tokens that were, None where there are none: what the baseline is the mean of."""
        return self.tokens[self.tokens["fitted"]] if self.fitted is not None else None


def check_log(log: RunLog, trace: Trace) -> None:
    """Refuse a log that is not of the decode steps of a trace.

    Raises:
        InputError: they differ in number.
    """
    steps = int(_decode_steps(trace).sum())
    if log.tokens != steps:
        raise InputError(
            f"{log.name} has {log.tokens} tokens and the trace {steps} decode steps; give a log "
            "and a trace of the same run, a row a decode step"
        )


def fit_all(
    log: RunLog, trace: Trace, engine: Engine, *, model: Model, centre: Centre = "typical"
) -> Fitted:
    """Fit on all tokens of a log; arguments and errors as of `held_out`."""
    check_log(log, trace)
    rows = np.ones(log.tokens, np.bool_)
    return fit_run(log, demand_of(trace, engine, model), model, rows, engine.channels, centre)


def held_out(
    log: RunLog,
    trace: Trace,
    engine: Engine,
    *,
    model: Model,
    split: Split = "first",
    centre: Centre = "typical",
    calibration: Calibration | None = None,
    measured_on: date | None = None,
) -> HeldOut:
    """Fit on a half of a run, simulate all of it, compare the other half.

    The cache of the first token that is compared is what the whole trace before it left.

    Args:
        log: measurements, a row a decode step of the trace.
        trace: the router's decisions in that run.
        engine: how it keeps and moves experts.
        model: that ran.
        split: which tokens are fitted on.
        centre: see `fit_run`.
        calibration: predicts in place of one fitted here; then no token is left out.
        measured_on: day of the run; today by default.

    Raises:
        InputError: log, trace and engine do not fit together, or the log cannot be fitted.
    """
    check_log(log, trace)
    fitted, rows = None, np.zeros(log.tokens, np.bool_)
    if calibration is None:
        rows, demand = fitted_rows(log.tokens, split), demand_of(trace, engine, model)
        fitted = fit_run(log, demand, model, rows, engine.channels, centre, measured_on)
        calibration = fitted.calibration
    if rows.all():
        raise InputError(
            f"{log.name}: all of its {log.tokens} tokens are fitted on and none is left to "
            "compare; give a longer log, or --fit first"
        )
    simulated, label = predicted(trace, engine, model, calibration)
    table: dict[str, Any] = {"token": np.arange(log.tokens), "fitted": rows}
    lookups = simulated["lookups"].to_numpy()
    for name, measured in _columns(log, model, lookups).items():
        table[f"{name}_measured"] = measured
        table[f"{name}_simulated"] = simulated[name]
    table["lookups"] = lookups
    return HeldOut(pd.DataFrame(table), calibration, fitted, label)


def _columns(log: RunLog, model: Model, lookups: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """What the log has that the simulation predicts, by the name there.

    Where hits are not noted and all experts are equally large, bytes tell them.
    """
    hits = log.hits
    if hits is None and log.read_bytes is not None and len(set(model.layer_bytes)) == 1:
        hits = np.maximum(lookups - np.rint(log.read_bytes / model.layer_bytes[0]), 0.0)
    if hits is not None and (hits > lookups).any():
        at = int(np.flatnonzero(hits > lookups)[0])
        raise InputError(
            f"{log.name}: token {at + 1} has {hits[at]:g} hits and the trace {lookups[at]} lookups "
            "of distinct experts; give the hits among these, or leave them out with --column hits="
        )
    known = {
        "wall_s": log.wall_s,
        "compute_s": log.computed_s,
        "stall_s": log.waited_s,
        "mgmt_s": log.mgmt_s,
        "read_bytes": log.read_bytes,
        "hits": hits,
        "hit_share": log.hit_share,
    }
    return {name: column for name, column in known.items() if column is not None}


def _decode_steps(trace: Trace) -> Rows:
    """[steps] bool."""
    return np.array([step.phase == DECODE for step in steps_of(trace)])
