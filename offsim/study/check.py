"""Predicted against measured: the same policies simulated and run, and how far they are apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import pandas as pd
from scipy.stats import kendalltau
from transformers import PreTrainedModel

from offsim.calibration.schema import Calibration
from offsim.policy.policy import Policy
from offsim.record import Metrics, RunRecord, metrics_of
from offsim.record.typical import typical
from offsim.runtime.run import Run, run_offloaded
from offsim.runtime.store import ExpertStore
from offsim.simulate import simulate
from offsim.study.prepare import Key, Recorded


@dataclass(frozen=True, slots=True)
class Scenario:
    """A policy on a link.

    Attributes:
        policy: codec, bound, cache, slots.
        link_bytes_per_s: pace of the link, bytes/s.
    """

    policy: Policy
    link_bytes_per_s: float

    def __str__(self) -> str:
        return f"{self.policy}, {self.link_bytes_per_s / 1e6:.0f} MB/s"


@dataclass(frozen=True)
class Checked:
    """One scenario, predicted and measured.

    Attributes:
        scenario: which.
        predicted: metrics of the simulation.
        simulated: its record.
        measured: metrics of the typical run (`offsim.record.typical`).
        repeats: metrics of each run.
        decisions_equal: whether every run's decision log equals the simulation's.
        tokens_equal: whether every run wrote the tokens of the recorded model.
    """

    scenario: Scenario
    predicted: Metrics
    simulated: RunRecord
    measured: Metrics
    repeats: list[Metrics]
    decisions_equal: bool
    tokens_equal: bool


def check(
    model: PreTrainedModel,
    scenarios: Sequence[Scenario],
    stores: Mapping[Key, ExpertStore],
    recordings: Mapping[Key, Recorded],
    prompts: Sequence[Sequence[int]],
    count: int,
    calibration: Calibration,
    repeats: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Checked]:
    """Predict every scenario, then run all of them, interleaved, `repeats` times.

    Nothing is fitted: the calibration was taken apart from these runs, with other prompts. The
    trace of a lossy codec is recorded from the model with its decoded experts, because an error
    changes what the router chooses.

    Args:
        model: whose experts are offloaded.
        scenarios: what to check.
        stores: by codec and bound.
        recordings: by codec and bound, of these prompts and this count.
        prompts: ids of each request.
        count: tokens written for each.
        calibration: of this machine and model.
        repeats: runs of each scenario.
        progress: told before each run.
    """
    predicted = [
        simulate(recordings[s.policy.key].trace, s.policy, calibration, s.link_bytes_per_s)
        for s in scenarios
    ]
    runs: list[list[Run]] = [[] for _ in scenarios]
    order = list(range(len(scenarios)))
    for repeat in range(repeats):
        Random(repeat).shuffle(order)
        for number in order:
            scenario = scenarios[number]
            policy, link = scenario.policy, scenario.link_bytes_per_s
            progress(f"run {repeat + 1} of {repeats}: {scenario}")
            runs[number].append(
                run_offloaded(model, stores[policy.key], policy, prompts, count, link)
            )
    return [
        Checked(
            scenario=scenario,
            predicted=metrics_of(record),
            simulated=record,
            measured=metrics_of(typical([run.record for run in ran])),
            repeats=[metrics_of(run.record) for run in ran],
            decisions_equal=all(r.record.decisions() == record.decisions() for r in ran),
            tokens_equal=all(r.tokens == recordings[scenario.policy.key].tokens for r in ran),
        )
        for scenario, record, ran in zip(scenarios, predicted, runs, strict=True)
    ]


COMPARED = {
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "itl_p95": "itl_p95_s",
    "throughput": "tokens_per_s",
}
"""Metrics that are compared, by their short names."""


def comparison(checked: Sequence[Checked]) -> pd.DataFrame:
    """A row a scenario: predicted, measured (the typical run), error as a fraction.

    `*_spread` is the range of the repeats over their median: what the machine does not repeat.
    """
    rows = []
    for one in checked:
        policy = one.scenario.policy
        row: dict[str, object] = {
            "codec": policy.codec,
            "bound": policy.bound,
            "cache": policy.cache,
            "slots": policy.slots,
            "link_MB_per_s": one.scenario.link_bytes_per_s / 1e6,
        }
        for short, name in COMPARED.items():
            guess = getattr(one.predicted, name)
            seen = getattr(one.measured, name)
            repeats = [getattr(metrics, name) for metrics in one.repeats]
            row |= {
                f"{short}_simulated": guess,
                f"{short}_measured": seen,
                f"{short}_error": guess / seen - 1,
                f"{short}_spread": (max(repeats) - min(repeats)) / float(np.median(repeats)),
            }
        row |= {
            "hit_rate_simulated": one.predicted.hit_rate,
            "hit_rate_measured": one.measured.hit_rate,
            "bytes_simulated": one.predicted.link_bytes,
            "bytes_measured": one.measured.link_bytes,
            "decisions_equal": one.decisions_equal,
            "tokens_equal": one.tokens_equal,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> dict[str, float | int | bool | None]:
    """The check in a few numbers; errors are fractions, absolute.

    `kendall_tau` is None where it is not defined (fewer than two scenarios).
    """
    tau = None
    if len(table) > 1:
        tau = float(kendalltau(table["tpot_simulated"], table["tpot_measured"]).statistic)
    tpot, ttft = table["tpot_error"].abs(), table["ttft_error"].abs()
    best = table["tpot_simulated"].idxmin() == table["tpot_measured"].idxmin()
    return {
        "policies_checked": len(table),
        "tpot_error_median": float(tpot.median()),
        "tpot_error_max": float(tpot.max()),
        "ttft_error_median": float(ttft.median()),
        "ttft_error_max": float(ttft.max()),
        "tpot_spread_median": float(table["tpot_spread"].median()),
        "kendall_tau": None if tau is None or np.isnan(tau) else tau,
        "best_policy_named": bool(best),
        "decision_logs_equal": bool(table["decisions_equal"].all()),
        "tokens_equal": bool(table["tokens_equal"].all()),
        "bytes_equal": bool((table["bytes_simulated"] == table["bytes_measured"]).all()),
    }
