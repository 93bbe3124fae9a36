"""`offsim explain`: why a policy takes the time that it takes, and what would help."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from offsim.cli import display, options
from offsim.cli.groups import Loading, Placement, Storage, grouped

if TYPE_CHECKING:
    from offsim.study.case import Case
    from offsim.study.explain import Explained
    from offsim.study.working_set import WorkingSet


@grouped
def explain(
    *,
    trace: options.TraceFile,
    calibration: options.CalibrationFile,
    storage: Storage,
    loading: Loading,
    placement: Placement,
    link: options.LinkSpeed = "paced",
    figure: options.Figure = None,
    as_json: options.Json = False,
) -> None:
    """Say why a policy takes the time that it takes, and what would help.

    Is the stall the policy's fault or the working set's, which resource is the bottleneck, what
    would the next GiB of cache, GB/s of link and bit of compression bring, and what prefetching?

    Example: offsim explain --trace traces/embedded.safetensors --calibration
    calibration/machines/xeon-2core.yaml --slots 3 --link 60 --figure explained.png
    """
    from offsim.cli.case import asked_policy, case_of
    from offsim.cli.policies import described
    from offsim.files import check_writable
    from offsim.study.explain import explain as explained
    from offsim.trace import load_trace

    policy = asked_policy(storage, loading, placement)
    if figure is not None:
        check_writable(figure.parent)
    case = case_of(load_trace(trace), calibration, policy, link, loading.profile, placement)
    with display.progress(as_json) as tell:
        found = explained(case, tell)
        if figure is not None:
            from offsim.files import replacing
            from offsim.report.explained import explained_figure
            from offsim.report.style import png

            image = png(explained_figure(found, described(case.policy)))
            with replacing(figure) as partial:
                partial.write_bytes(image)
    if as_json:
        display.emit_json(_json(found, case))
    else:
        _show(found, case)


def _json(found: "Explained", case: "Case") -> dict[str, Any]:
    from offsim.study.answers import answers

    sets = [
        {**asdict(one), "median_ratio": _ratio(one.median, case.slots)}
        for one in found.working_sets
    ]
    changes = [{**asdict(one), "saved_s": one.saved_s} for one in found.changes]
    return {
        **asdict(found),
        "working_sets": sets,
        "changes": changes,
        "foresight": {**asdict(found.foresight), "saved_s": found.foresight.saved_s},
        "setting": case.policy.model_dump(mode="json"),
        "link_bytes_per_s": case.bandwidth,
        "answers": answers(found),
    }


def _ratio(experts: float, slots: float) -> float:
    return experts / slots if slots else float("inf")


def _show(found: "Explained", case: "Case") -> None:
    import pandas as pd

    from offsim.cli.policies import described
    from offsim.study.answers import answers
    from offsim.units import show_seconds

    bounds = {
        "this policy": found.policy,
        "Belady, same slots (bound)": found.belady,
        "infinite cache": found.infinite,
        "all resident, compute alone": found.resident,
    }
    rows = [
        {
            "cache": name,
            "hit rate": "100%" if one is found.resident else f"{one.hit_rate:.1%}",
            "in decoding": "100%" if one is found.resident else f"{one.hit_rate_decode:.1%}",
            "TTFT": show_seconds(one.ttft_s),
            "TPOT": show_seconds(one.tpot_s),
        }
        for name, one in bounds.items()
    ]
    title = f"{described(case.policy)} and its bounds [{found.label}]"
    display.show_table(title, pd.DataFrame(rows))
    split = found.split
    parts = {
        "compute": split.compute_s,
        "compulsory stall": split.compulsory_s,
        "capacity stall": split.capacity_s,
        "policy stall": split.policy_s,
        "TPOT": split.total_s,
    }
    shown = {
        name: f"{show_seconds(seconds)} ({seconds / split.total_s:.1%})"
        for name, seconds in parts.items()
    }
    display.show_facts(f"Where a token's time goes [{found.label}]", shown)
    sets = [_set_row(one, case.slots) for one in found.working_sets if one.layer is None]
    title = f"Distinct experts of a layer, and how many times its {case.slots:.3g} slots"
    display.show_table(title, pd.DataFrame(sets))
    busy = pd.DataFrame([asdict(one) for one in found.busy]).set_index("resource")
    percent = busy.map(lambda share: "-" if math.isnan(share) else f"{share:.0%}").reset_index()
    waited = found.policy.decode_stall_s
    percent["waited for, a decode step"] = [
        show_seconds(waited[name]) if name in waited else "-" for name in percent["resource"]
    ]
    display.show_table(f"Busy resources [{found.label}]", percent)
    for sentence in answers(found):
        typer.echo(sentence)


def _set_row(one: "WorkingSet", slots: float) -> dict[str, str]:
    count = f"{one.tokens} decode token{'s' if one.tokens != 1 else ''}"
    return {
        "asked for by": "a prompt" if one.tokens is None else count,
        **{
            name: f"{experts:.3g} ({_ratio(experts, slots):.2f} x)"
            for name, experts in (
                ("median", one.median),
                ("p95", one.p95),
                ("largest", float(one.largest)),
            )
        },
    }
