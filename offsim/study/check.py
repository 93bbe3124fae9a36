"""Predicted against measured: the same policies simulated and run, and how far they are apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Generic

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from offsim.calibration.schema import Calibration
from offsim.policy.policy import Policy
from offsim.record import Metrics, metrics_of
from offsim.record.typical import typical
from offsim.runtime.run import Run
from offsim.runtime.store import ExpertStore
from offsim.simulate import simulate
from offsim.simulate.band import LEVEL, Band, band
from offsim.study.prepare import Key, Recorded
from offsim.study.subject import Request, Subject
from offsim.trace import Trace


@dataclass(frozen=True, slots=True)
class Scenario:
    """A policy on a link.

    Attributes:
        policy: codec, bound, cache, slots, prefetcher.
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
        measured: metrics of the typical run (`offsim.record.typical`).
        repeats: metrics of each run.
        decisions_equal: whether every run's decision log, prefetches included, equals the
            simulation's.
        tokens_equal: whether every run wrote the tokens of the recorded model.
        band: where metrics measured from as many repeats lie, by the calibration alone; empty
            where it does not say.
    """

    scenario: Scenario
    predicted: Metrics
    measured: Metrics
    repeats: list[Metrics]
    decisions_equal: bool
    tokens_equal: bool
    band: Band = field(default_factory=dict)


class Checker(Generic[Request]):
    """Runs scenarios again and again, and compares them with what is simulated.

    Nothing is fitted: a calibration is taken apart from these runs, with other prompts and
    policies. The trace of a lossy codec is recorded from the model with its decoded experts,
    because an error changes what the router chooses.

    Args:
        subject: whose experts are offloaded.
        scenarios: what to check.
        stores: by codec and bound, or as `Policy.blobs` names them.
        requests: that are run.
        count: output tokens of each.
        profile: an earlier trace that runs and simulations may learn from alike.
    """

    def __init__(
        self,
        subject: Subject[Request],
        scenarios: Sequence[Scenario],
        stores: Mapping[Key, ExpertStore],
        requests: Sequence[Request],
        count: int,
        profile: Trace | None = None,
    ) -> None:
        self.subject, self.scenarios, self.stores = subject, scenarios, stores
        self.requests, self.count, self.profile = requests, count, profile
        self.runs: list[list[Run]] = [[] for _ in scenarios]

    def repeat(self, progress: Callable[[str, float], None] = lambda *_: None) -> None:
        """Run every scenario once, in an order of its own.

        Args:
            progress: told before each run which it is and which share of the repeat is done.
        """
        order = list(range(len(self.scenarios)))
        Random(len(self.runs[0])).shuffle(order)
        for done, number in enumerate(order):
            scenario = self.scenarios[number]
            progress(f"run {len(self.runs[number]) + 1}: {scenario}", done / len(order))
            store, link = self.stores[scenario.policy.blobs], scenario.link_bytes_per_s
            run = self.subject.run(
                store, scenario.policy, self.requests, self.count, link, profile=self.profile
            )
            self.runs[number].append(run)

    def compare(
        self, recordings: Mapping[Key, Recorded], calibration: Calibration
    ) -> list[Checked]:
        """Simulate every scenario and hold it against its runs.

        Args:
            recordings: by codec and bound, of these requests and this count; with `lookahead` as
                far as the gates are asked.
            calibration: of this machine and model.
        """
        return [
            self._checked(scenario, runs, recordings[scenario.policy.blobs], calibration)
            for scenario, runs in zip(self.scenarios, self.runs, strict=True)
        ]

    def _checked(
        self, scenario: Scenario, runs: list[Run], recording: Recorded, calibration: Calibration
    ) -> Checked:
        policy, link = scenario.policy, scenario.link_bytes_per_s
        simulated = simulate(recording.trace, policy, calibration, link, self.profile)
        decisions = simulated.decisions()
        return Checked(
            scenario=scenario,
            predicted=metrics_of(simulated),
            measured=metrics_of(typical([run.record for run in runs])),
            repeats=[metrics_of(run.record) for run in runs],
            decisions_equal=all(run.record.decisions() == decisions for run in runs),
            tokens_equal=all(run.tokens == recording.tokens for run in runs),
            band=band(recording.trace, policy, calibration, link, self.profile, repeats=len(runs)),
        )


COMPARED = {
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "itl_p95": "itl_p95_s",
    "throughput": "tokens_per_s",
}
"""Metrics that are compared, by their short names."""

BYTES = {"bytes": "link_bytes", "prefetch_bytes": "prefetch_bytes", "wasted_bytes": "wasted_bytes"}
"""Bytes that must be equal. They are of what was asked for, by the decisions alone: how much of a
prefetch had crossed the link when it was given up is a matter of time."""


def comparison(checked: Sequence[Checked]) -> pd.DataFrame:
    """A row a scenario: predicted, measured (the typical run), error as a fraction.

    `*_spread` is the range of the repeats over their median: what the machine does not repeat.
    `*_low` and `*_high` are the ends of the band around the prediction, NaN where there is none.
    """
    rows = []
    for one in checked:
        policy = one.scenario.policy
        row: dict[str, object] = {
            "codec": policy.codec,
            "bound": policy.bound,
            "cache": policy.cache,
            "slots": policy.slots,
            "prefetch": policy.prefetch,
            "distance": policy.distance,
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
            ends = one.band.get(name)
            row[f"{short}_low"] = np.nan if ends is None else ends.low
            row[f"{short}_high"] = np.nan if ends is None else ends.high
        row |= {
            "hit_rate_simulated": one.predicted.hit_rate,
            "hit_rate_measured": one.measured.hit_rate,
            "late_rate_simulated": one.predicted.late_rate,
            "late_rate_measured": one.measured.late_rate,
        }
        for short, name in BYTES.items():
            row[f"{short}_simulated"] = getattr(one.predicted, name)
            row[f"{short}_measured"] = getattr(one.measured, name)
        row |= {
            "decisions_equal": one.decisions_equal,
            "tokens_equal": one.tokens_equal,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def covered(table: pd.DataFrame) -> dict[str, float] | None:
    """The share of scenarios whose measured value is within the band, by metric.

    None where no prediction has a band.
    """
    shares = {}
    for short in COMPARED:
        columns = [f"{short}_{name}" for name in ("measured", "low", "high")]
        if set(columns) <= set(table.columns) and not (known := table[columns].dropna()).empty:
            measured, low, high = (known[column] for column in columns)
            shares[short] = float(((low <= measured) & (measured <= high)).mean())
    return shares or None


def summary(table: pd.DataFrame) -> dict[str, object]:
    """The check in a few numbers; errors are fractions, absolute.

    `kendall_tau` is None where it is not defined (fewer than two scenarios). `covered` is of the
    bands, which are to cover `band_level` of the measured values; both are None without bands.
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
        "covered": (shares := covered(table)),
        "band_level": None if shares is None else LEVEL,
        "decision_logs_equal": bool(table["decisions_equal"].all()),
        "tokens_equal": bool(table["tokens_equal"].all()),
        "bytes_equal": all(
            bool((table[f"{short}_simulated"] == table[f"{short}_measured"]).all())
            for short in BYTES
        ),
    }
