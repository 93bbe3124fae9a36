"""What a study found and what to be careful about, in sentences computed from its data."""

import math
from dataclasses import dataclass

import pandas as pd

from offsim.report.data import StudyData
from offsim.report.figures import NEAR
from offsim.report.heatmaps import PROSE
from offsim.report.text import (
    link_text,
    milliseconds,
    number,
    percent,
    policies,
    storage_text,
)
from offsim.units import MB


@dataclass(frozen=True, slots=True)
class Best:
    """The fastest policies on one link.

    Attributes:
        link: its speed, MB/s.
        measured: the fastest of all as measured; as `simulated` and `lossy` an index of check.csv.
        simulated: the fastest of all as simulated.
        lossy: the fastest measured with an error bound; None where every policy is lossless.
        rival: the fastest measured without a bound that has as many slots as `lossy`, if any.
    """

    link: float
    measured: int
    simulated: int
    lossy: int | None
    rival: int | None


def best_by_link(check: pd.DataFrame) -> list[Best]:
    """The fastest policies by TPOT on each link, slowest link first.

    Args:
        check: check.csv with its index 0, 1, ...; TPOT in seconds.
    """
    found = []
    for link, rows in check.groupby("link_MB_per_s"):
        lossy = _fastest(rows[rows["bound"] > 0], "tpot_measured")
        rival = None
        if lossy is not None:
            same = rows[(rows["bound"] == 0) & (rows["slots"] == check["slots"].iloc[lossy])]
            rival = _fastest(same, "tpot_measured")
        measured = _fastest(rows, "tpot_measured")
        simulated = _fastest(rows, "tpot_simulated")
        if measured is not None and simulated is not None:
            found.append(Best(float(str(link)), measured, simulated, lossy, rival))
    return found


def _fastest(rows: pd.DataFrame, column: str) -> int | None:
    times = rows[column].dropna()
    return int(str(times.idxmin())) if len(times) else None


def mean_ica(accuracy: pd.DataFrame, codec: str, bound: float) -> float:
    """Mean ICA over the tasks, 0..1; NaN where this storage was not asked."""
    rows = accuracy[(accuracy["codec"] == codec) & (accuracy["bound"] == bound)]
    return float(rows.loc[rows["task"] != PROSE, "ica"].mean())


def prose_cost(accuracy: pd.DataFrame, codec: str, bound: float) -> float:
    """Bits a character of prose; NaN where it was not measured."""
    rows = accuracy[(accuracy["codec"] == codec) & (accuracy["bound"] == bound)]
    return float(rows.loc[rows["task"] == PROSE, "bits_a_character"].mean())


def answer(data: StudyData) -> list[str]:
    """What the study found, as the sentences of one paragraph."""
    return [*_prediction(data), *_best(data)]


def _prediction(data: StudyData) -> list[str]:
    check, facts = data.check, data.summary
    total = len(check)
    tpot, ttft = check["tpot_error"].abs(), check["ttft_error"].abs()
    tau = facts["kendall_tau"]
    order = "is not defined for so few" if tau is None else f"is {tau:.3f}"
    runs = "once" if facts["repeats"] == 1 else f"{facts['repeats']} times"
    return [
        f"{total} policies were run {runs} each, between the rounds of a calibration that used "
        "other prompts and policies, and simulated from that calibration alone. Both sides are "
        "taken as on a machine left in peace: of each step the repeat at the first quartile of "
        "its duration, of the calibration the faster half of its rounds.",
        f"The simulated TPOT is off by {percent(tpot.median())} in the median and "
        f"{percent(tpot.max())} at worst, and within {100 * NEAR:.0f} % for "
        f"{int((tpot <= NEAR).sum())} of {total}; the TTFT by {percent(ttft.median())} and "
        f"{percent(ttft.max())}.",
        f"Kendall's tau between the simulated and the measured order of TPOT {order}.",
        *_covered(check),
        f"{_equal(facts['decision_logs_equal'], 'The decision logs')}; "
        f"{_equal(facts['bytes_equal'], 'the bytes on the link')}; every run "
        f"{'wrote' if facts['tokens_equal'] else 'did NOT write'} the tokens of the recorded "
        "model.",
    ]


def _covered(check: pd.DataFrame) -> list[str]:
    """How many measured values are in the bands; nothing where there is none."""
    known = check[["tpot_low", "tpot_high", "ttft_low", "ttft_high"]].notna().all(axis=None)
    if not known:
        return []
    inside = {
        metric: int(
            check[f"{metric}_measured"]
            .between(check[f"{metric}_low"], check[f"{metric}_high"])
            .sum()
        )
        for metric in ("tpot", "ttft")
    }
    return [
        "The band of 90 % that the calibration alone gives each prediction holds the measured TPOT "
        f"of {inside['tpot']} of {len(check)} policies and the TTFT of {inside['ttft']}."
    ]


def _equal(equal: bool, what: str) -> str:
    return f"{what} of the runs {'equal' if equal else 'do NOT all equal'} the simulated ones"


def _best(data: StudyData) -> list[str]:
    check, accuracy = data.check, data.accuracy
    pace = data.summary["link_bytes_per_s"] / MB
    bests = sorted(best_by_link(check), key=lambda best: abs(best.link - pace))
    if not bests or bests[0].lossy is None:
        return []
    best, lossy, named = bests[0], bests[0].lossy, policies(check)
    row = check.iloc[lossy]
    text = (
        f"On the link that imitates {data.summary['link_imitates']} ({link_text(best.link)}) the "
        f"fastest policy with an error bound is {named[lossy]}: "
        f"{milliseconds(row['tpot_measured'])} ms a token measured"
    )
    if best.rival is not None:
        rival = check["tpot_measured"].iloc[best.rival]
        text += (
            f", against {milliseconds(rival)} ms for {named[best.rival]} "
            f"({rival / row['tpot_measured']:.2f} times as fast)"
        )
    sentences = [text + "."]
    same = sum(b.measured == b.simulated for b in bests)
    sentences.append(
        f"The simulator names the fastest policy on {same} of {len(bests)} link speeds."
    )
    plain, under = mean_ica(accuracy, "raw", 0.0), mean_ica(accuracy, row["codec"], row["bound"])
    if math.isfinite(plain) and math.isfinite(under):
        sentences.append(
            f"Under {storage_text(row['codec'], row['bound'])} the mean ICA over the tasks is "
            f"{percent(under)} against {percent(plain)} without loss, and prose costs "
            f"{number(prose_cost(accuracy, row['codec'], row['bound']), 3)} bits a character "
            f"against {number(prose_cost(accuracy, 'raw', 0.0), 3)}."
        )
    return sentences


def cautions(data: StudyData) -> list[tuple[str, str]]:
    """What to be careful about: a heading and a paragraph each."""
    facts, model = data.summary, data.calibration.model
    pace = link_text(facts["link_bytes_per_s"] / MB)
    slowed = f"{facts['link_slowed_by']:,.0f}"
    found = [
        (
            "The link is paced",
            f"Transfers are held to {pace} and to fixed multiples of it. At {pace} one expert "
            f"takes {facts['transfer_to_compute']:.2f} times as long on the link as the compute "
            f"of one layer and token; on {facts['link_imitates']} it is "
            f"{facts['transfer_to_compute_imitated']:.2f} times, ESTIMATED from data sheets (the "
            "pace is set after the first round of the calibration). This link is "
            f"{slowed} times slower than the real one, while decoding and compute are not slowed "
            "at all. A codec that decodes on the host therefore looks cheaper here than on "
            "that machine, where its decoding would be "
            f"weighed against a link {slowed} times as fast.",
        ),
        (
            "The model is small",
            f"What the embedded model ({model.layers} layers of {model.experts} experts, "
            f"{model.hidden} wide) tolerates says nothing about a large model: its weights have "
            "another spread, so the same absolute bound means another error.",
        ),
        (
            "The experts are tiny",
            f"One has {model.expert_bytes / 1e3:.1f} KB. Fixed costs of a load (asking, waking a "
            "thread, the header of a blob) weigh more than for experts of hundreds of MB, and "
            "an expert fits in a processor's cache.",
        ),
        (
            "The sample is small",
            f"{_count(facts['requests'], 'request')} of {facts['tokens_a_request']} tokens were "
            f"run, and {_count(facts['items_a_task'], 'item')} a task asked: read the intervals, "
            "not only the shares. " + _repeats(data),
        ),
        (
            "It is one machine",
            f"Every MEASURED number is from {facts['machine']['cpu']} with "
            f"{facts['machine']['cores']} cores, where threads play the link and the device. "
            "Nothing here was run over a real PCIe link or on an accelerator.",
        ),
    ]
    if not facts["every_expert_within_its_bound"]:
        text = "At least one expert decoded with an error above its bound; see the codecs."
        found.insert(0, ("A bound was broken", text))
    return found


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _repeats(data: StudyData) -> str:
    spread = data.check["tpot_spread"]
    if data.summary["repeats"] == 1:
        return "Each policy ran once, so that the machine's own noise is not known."
    return (
        f"Runs of one policy differ by {percent(spread.median())} of their TPOT in the median and "
        f"by {percent(spread.max())} at worst (largest less smallest, over the median): a single "
        "run on this machine is not predicted better than that."
    )
