"""`offsim check`: predicted against measured."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import devices, display, options
from offsim.cli.check_from import OPTION, FromRun, check_from
from offsim.cli.driven import Driven, tell_driven
from offsim.cli.groups import grouped
from offsim.cli.logged import refuse_others, trace_alone
from offsim.cli.own_model import OwnModel

if TYPE_CHECKING:
    import pandas as pd

    from offsim.study.checkpoint import CheckpointSubject
    from offsim.study.subject import DrivenSubject


@grouped
def check(
    *,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Calibration file (YAML) of this machine; needed except with --from."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("out"),
    device: devices.DeviceOption = devices.Device.CPU,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer tokens and runs.")] = False,
    profile: options.Profile = None,
    prefetch: options.Prefetch = "none",
    distance: options.Distance = 1,
    prefetch_budget: options.PrefetchBudget = None,
    own: OwnModel,
    driven: Driven,
    logged: FromRun,
    as_json: options.Json = False,
) -> None:
    """Simulate a set of policies, run them for real, and compare.

    With --model, as given to `offsim calibrate`, a checkpoint answers the first half of the
    prompts of a file. With --trace, likewise, its routing drives generated experts. With --from,
    nothing is run: the log of a run of any engine is fitted on one half of its tokens and
    predicted for the other. With --device cuda, policies run on a CUDA device, and the calibration
    has to be of one.

    Example: offsim check --calibration machine.yaml --out out --prefetch gate
    Or: offsim check --from run.csv --trace run.safetensors --capacity 3000MiB
    """
    from offsim.calibration.schema import Calibration
    from offsim.cli.policies import prefetching
    from offsim.errors import InputError
    from offsim.files import check_writable, read_yaml
    from offsim.policy.policy import Policy
    from offsim.runtime.devices import device_named
    from offsim.trace import load_trace

    like = prefetching(Policy(), prefetch, distance, prefetch_budget, 1.0, 1.0)
    is_own = own.check()
    if logged.log_file is not None:
        others = {"quick": quick, "profile": profile is not None, "prefetch": prefetch != "none"}
        others |= {"device": device is not devices.Device.CPU, "model": is_own}
        refuse_others(OPTION, others)
        routed = trace_alone(driven, OPTION)
        check_from(logged, logged.log_file, routed, out, calibration, as_json=as_json)
        return
    logged.refuse(OPTION)
    if calibration is None:
        raise InputError("predictions take a calibration; give --calibration, or a log by --from")
    computes = device_named(device)
    known = load_trace(profile) if profile is not None else None
    check_writable(out)
    figures = read_yaml(calibration, Calibration)
    routing = driven.subject()
    own.check_alone(routing)
    if routing is not None:
        from offsim.runtime.driven import check_foresight

        check_foresight(routing.trace, like)
        shape = routing.model.shape
        most = shape.layers * max(slots_of(shape.experts))
        routing.check_room(most, len(figures.codecs), driven.budget)
        tell_driven(routing)
        routing = replace(routing, device=computes)
    with display.progress() as tell:
        from offsim.study.plan import FULL_PLAN, QUICK_PLAN
        from offsim.study.study import check_alone

        plan = QUICK_PLAN if quick else FULL_PLAN
        subject: DrivenSubject | CheckpointSubject | None = routing
        if is_own:
            tell("opening the checkpoint", 0.0)
            opened = subject = own.subject(plan.tokens, computes)
            opened.check_room([(codec.codec, codec.bound) for codec in figures.codecs])
        if subject is not None:
            plan = replace(plan, slots=slots_of(subject.facts.experts))
        table, facts = check_alone(figures, plan, out, tell, like, known, subject, computes)
    if as_json:
        display.emit_json(facts)
    else:
        show_comparison(table, facts)
        typer.echo(f"tables: {out}")


def slots_of(experts: int) -> tuple[int, ...]:
    """Cache sizes that are checked: a quarter and half of the experts of a layer."""
    return tuple(sorted({max(1, experts // 4), max(1, experts // 2)}))


def show_comparison(table: "pd.DataFrame", facts: Mapping[str, Any]) -> None:
    """Print predicted against measured, a line a policy, and the errors in a few numbers."""
    import pandas as pd

    shown = pd.DataFrame(
        {
            "codec": table["codec"],
            "bound": table["bound"].map(lambda bound: f"{bound:g}"),
            "slots": table["slots"],
            "MB/s": table["link_MB_per_s"].map(lambda speed: f"{speed:.1f}"),
            "sim ms": table["tpot_simulated"].map(lambda s: f"{s * 1e3:.2f}"),
            "run ms": table["tpot_measured"].map(lambda s: f"{s * 1e3:.2f}"),
            **({"90 % band": _bands(table)} if facts.get("covered") is not None else {}),
            "error": table["tpot_error"].map(lambda e: f"{e:+.1%}"),
            "TTFT": table["ttft_error"].map(lambda e: f"{e:+.1%}"),
            "hits": table["hit_rate_measured"].map(lambda rate: f"{rate:.0%}"),
            "log": table["decisions_equal"].map({True: "equal", False: "DIFFERS"}),
        }
    )
    label = facts.get("predictions", "SIMULATED")  # not in studies of before it was noted
    title = f"TPOT {label} (sim) against MEASURED (run), and the errors of TPOT and TTFT"
    display.show_table(title, shown)
    tau = facts["kendall_tau"]
    typer.echo(
        f"{facts['policies_checked']} policies: "
        f"TPOT error median {facts['tpot_error_median']:.1%}, "
        f"worst {facts['tpot_error_max']:.1%}; TTFT error median {facts['ttft_error_median']:.1%}; "
        f"Kendall tau {'undefined' if tau is None else f'{tau:.3f}'}; "
        f"decision logs {'equal' if facts['decision_logs_equal'] else 'DIFFERENT'}"
    )
    if facts.get("covered") is not None:
        shares = (f"{metric} {share:.0%}" for metric, share in facts["covered"].items())
        typer.echo(f"measured within the {facts['band_level']:.0%} band: {', '.join(shares)}")


def _bands(table: "pd.DataFrame") -> list[str]:
    """The ends of the band of TPOT, ms."""
    ends = zip(table["tpot_low"], table["tpot_high"], strict=True)
    return [f"{low * 1e3:.2f} to {high * 1e3:.2f}" for low, high in ends]
