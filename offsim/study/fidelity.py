"""How exact predictions are: the parts of `offsim.study.design`, each checked several times.

A part and repetition is one experiment, of some minutes: rounds of a calibration lie between the
repeats of the runs, and neither sees the other. It leaves one table; what is there already is not
done again, so that an experiment that was cut off goes on where it was.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offsim.calibration.schema import Calibration
from offsim.errors import FormatError
from offsim.files import replacing, write_json, write_yaml
from offsim.record import metrics_of
from offsim.record.typical import typical
from offsim.runtime.run import Run
from offsim.simulate import predict
from offsim.study.ablation import CHUNKS, TERMS, without
from offsim.study.calibrate import SEED, Calibrator
from offsim.study.check import COMPARED, Checker, Scenario, comparison, covered
from offsim.study.design import LOOKAHEAD, PARTS, PROFILE_SEED, REQUESTS_SEED, Part
from offsim.study.plan import Progress, part
from offsim.study.prepare import Key, Recorded
from offsim.study.reference import pace
from offsim.study.study import compressed, recorded_under
from offsim.study.uncertain import REPLICATES
from offsim.trace import Trace

SEEDS_APART = 1000
"""Of the prompts that two repetitions are calibrated on."""
BYTES_EQUAL = ("bytes", "prefetch_bytes", "wasted_bytes")
GROUPS = ["part", "codec", "bound"]
"""Of policies among which the fastest is to be named."""


def fidelity(
    out: Path,
    repetitions: int,
    apart_s: float = 0.0,
    parts: Sequence[Part] = PARTS,
    progress: Progress = lambda *_: None,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Check every part so many times; all tables are left in a folder.

    Args:
        out: folder; what it has of an earlier call is kept.
        repetitions: of each part.
        apart_s: from the start of one repetition to that of the next, at least.
        parts: what is checked.
        progress: for a display.
        sleep: waits so many seconds.

    Returns:
        A row a policy, part and repetition, and the errors in a few numbers.

    Raises:
        FormatError: a table in the folder is not one of these.
    """
    experiments = [(number, one) for number in range(repetitions) for one in parts]
    started = -np.inf
    for done, (number, one) in enumerate(experiments):
        path = table_path(out, one.name, number)
        if path.exists():
            continue
        if one is parts[0] and (left := started + apart_s - time.monotonic()) > 0:
            progress(f"waiting for repetition {number + 1}", done / len(experiments))
            sleep(left)
        if one is parts[0]:
            started = time.monotonic()
        tell = part(progress, done / len(experiments), (done + 1) / len(experiments))
        table = checked(one, number, out, tell)
        with replacing(path) as partial:
            table.to_csv(partial, index=False)
    whole = collected(out)
    facts = judged(whole)
    with replacing(out / "fidelity.csv") as partial:
        whole.to_csv(partial, index=False)
    write_json(out / "fidelity.json", facts)
    return whole, facts


def table_path(out: Path, name: str, number: int) -> Path:
    """Where the table of a part and repetition is."""
    return out / "repetitions" / f"{name}-{number + 1}.csv"


def checked(one: Part, number: int, out: Path, progress: Progress) -> pd.DataFrame:
    """One part, once: calibrated, run and compared; a row a policy.

    Args:
        one: the part.
        number: of the repetition; its calibration has prompts of its own.
        out: folder; the calibration is left there.
        progress: for a display.
    """

    def named(what: str, share: float) -> None:
        progress(f"{one.name}: {what}", share)

    named("making the model", 0.0)
    subject = one.subject()
    stores = compressed(subject, one.storages, part(named, 0.01, 0.06))
    asked = subject.checked(one.requests, REQUESTS_SEED)
    recordings = recorded_under(
        subject, stores, asked, one.tokens, part(named, 0.06, 0.1), LOOKAHEAD
    )
    learned = subject.drawn(2, PROFILE_SEED)
    profile = subject.recorded(stores["raw", 0.0], learned, one.tokens).trace
    calibrator = Calibrator(subject, stores, one.effort, SEED + SEEDS_APART * number)
    named("calibrating for the first time", 0.1)
    calibrator.round()
    scenarios = one.scenarios(subject.facts, pace(calibrator.result()))
    checker = Checker(subject, scenarios, stores, asked, one.tokens, profile)
    more = one.effort.rounds - 1
    for done in range(more):
        begin, end = (0.15 + 0.8 * at / more for at in (done, done + 1))
        named(f"calibrating again, {done + 1} of {more}", begin)
        calibrator.round()
        for _ in range(one.repeats):
            checker.repeat(part(named, begin + 0.4 * (end - begin), end))
    calibration = calibrator.result(REPLICATES)
    write_yaml(out / "repetitions" / f"{one.name}-{number + 1}.yaml", calibration)
    table = comparison(checker.compare(recordings, calibration))
    table.insert(0, "part", one.name)
    table.insert(1, "repetition", number + 1)
    chunks = [scenario.policy.transfer.chunk_bytes for scenario in scenarios]
    table["chunk_bytes"] = [0 if chunk is None else chunk for chunk in chunks]
    table["policy"] = [str(scenario.policy) for scenario in scenarios]
    table["tpot_noise"] = [halves_apart(runs) for runs in checker.runs]
    for term in (*TERMS, CHUNKS):
        table[f"tpot_error_without_{term}"] = [
            _tpot_s(scenario, term, recordings, calibration, profile) / measured - 1
            for scenario, measured in zip(scenarios, table["tpot_measured"], strict=True)
        ]
    return table


def _tpot_s(
    scenario: Scenario,
    term: str,
    recordings: Mapping[Key, Recorded],
    calibration: Calibration,
    profile: Trace,
) -> float:
    """TPOT that a simulator without a term would predict, s."""
    policy, figures = without(term, scenario.policy, calibration)
    trace = recordings[scenario.policy.key].trace
    return predict(trace, policy, figures, scenario.link_bytes_per_s, profile).tpot_s


def halves_apart(runs: Sequence[Run]) -> float:
    """By which share the TPOT of one half of the repeats differs from that of the other."""
    first, second = (
        metrics_of(typical([run.record for run in runs[at::2]])).tpot_s for at in (0, 1)
    )
    return abs(first / second - 1)


def collected(out: Path) -> pd.DataFrame:
    """All tables of a folder in one.

    Raises:
        FormatError: one is not of this kind, or there is none.
    """
    tables = []
    for path in sorted((out / "repetitions").glob("*.csv")):
        table = pd.read_csv(path)
        if missing := {"part", "repetition", "tpot_error", "tpot_noise"} - set(table.columns):
            raise FormatError(f"{path}: it lacks the column {min(missing)}; remove the file")
        tables.append(table)
    if not tables:
        raise FormatError(f"{out}: there is no table of a repetition")
    return pd.concat(tables, ignore_index=True)


def judged(table: pd.DataFrame) -> dict[str, object]:
    """Errors, order, bands and noise over all rows, and by part; errors are absolute fractions."""
    parts = {str(name): _numbers(rows) for name, rows in table.groupby("part")}
    return {**_numbers(table), "parts": parts}


def _numbers(table: pd.DataFrame) -> dict[str, Any]:
    noise = float(table["tpot_noise"].median())
    errors = {
        short: {
            "median": float(error.median()),
            "p90": float(error.quantile(0.9)),
            "worst": float(error.max()),
        }
        for short in COMPARED
        for error in [table[f"{short}_error"].abs()]
    }
    named = [_named(rows, noise) for _, rows in table.groupby([*GROUPS, "repetition"])]
    taus = [_tau(rows, noise) for _, rows in table.groupby(["part", "repetition"])]
    return {
        "policies": len(table.drop_duplicates([c for c in POLICY if c in table.columns])),
        "runs_compared": len(table),
        "errors": errors,
        "tpot_noise_median": noise,
        "kendall_tau": float(np.nanmean(taus)),
        "kendall_tau_least": float(np.nanmin(taus)),
        "groups": len(named),
        "best_named": float(np.mean(named)),
        "covered": covered(table),
        "tpot_error_without": {
            term: {"median": float(error.median()), "worst": float(error.max())}
            for term in (*TERMS, CHUNKS)
            if (column := f"tpot_error_without_{term}") in table.columns
            for error in [table[column].abs()]
        },
        "decision_logs_equal": bool(table["decisions_equal"].all()),
        "tokens_equal": bool(table["tokens_equal"].all()),
        "bytes_equal": all(
            bool((table[f"{name}_simulated"] == table[f"{name}_measured"]).all())
            for name in BYTES_EQUAL
        ),
    }


POLICY = ["part", "codec", "bound", "cache", "slots", "prefetch", "distance", "chunk_bytes"]
"""What tells policies apart; with the link they make a scenario."""


def _named(rows: pd.DataFrame, noise: float) -> bool:
    """Whether the policy that is predicted to be the fastest is, or is within the noise of it."""
    chosen = rows.sort_values("tpot_simulated")["tpot_measured"].iloc[0]
    return bool(chosen <= rows["tpot_measured"].min() * (1 + noise))


def _tau(rows: pd.DataFrame, noise: float) -> float:
    """Kendall's tau of predicted and measured TPOT over pairs that differ by more than the noise.

    Concordant less discordant pairs, over both; NaN where there is no such pair.
    """
    measured, guessed = rows["tpot_measured"].to_numpy(), rows["tpot_simulated"].to_numpy()
    first, second = np.triu_indices(len(rows), 1)
    apart = np.abs(np.log(measured[first] / measured[second])) > np.log1p(noise)
    agree = np.sign(measured[first] - measured[second]) * np.sign(guessed[first] - guessed[second])
    return float(agree[apart].mean()) if apart.any() else np.nan
