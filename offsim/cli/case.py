"""From the files and options of a command to what it asks about."""

from pathlib import Path

import typer

from offsim.calibration.schema import Calibration
from offsim.cli import display
from offsim.cli.groups import Loading, Placement, Storage
from offsim.cli.placement import placing, with_auto, with_memory
from offsim.cli.policies import link_speed, moving, policy_of, prefetching, resolved
from offsim.files import read_yaml
from offsim.policy.policy import Policy
from offsim.simulate.mixture import stored
from offsim.simulate.simulation import check_shapes
from offsim.study.case import Case
from offsim.study.reference import layer_s
from offsim.trace import Trace, load_trace


def asked_policy(
    storage: Storage,
    loading: Loading,
    placement: Placement | None = None,
    stored: Policy | None = None,
) -> Policy:
    """The policy of the options; device memory and `auto` host tokens are left for `case_of`.

    Args:
        storage: codec and bounds.
        loading: what the device keeps, and how it gets the rest.
        placement: where experts are; None where that is not asked for.
        stored: has codec and bounds in place of `storage`, of experts that are compressed already.

    Raises:
        InputError: a value that cannot be, or one that nothing heeds.
        FormatError: a file is not a table of bounds.
    """
    policy = policy_of(
        storage.codec if stored is None else stored.codec,
        storage.bound if stored is None else stored.bound,
        loading.cache,
        loading.slots,
        loading.scope.value,
        storage.bounds if stored is None else stored.bounds,
    )
    policy = prefetching(
        policy,
        loading.prefetch,
        loading.distance,
        loading.prefetch_budget,
        loading.precision,
        loading.recall,
    )
    policy = moving(policy, loading.chunk, loading.pipelined, loading.channels, loading.decoders)
    if placement is None:
        return policy
    return placing(
        policy,
        placement.host_memory,
        placement.host_tokens,
        placement.keep.value,
        placement.decoded_share,
    )


def case_of(
    trace: Trace,
    calibration: Path,
    policy: Policy,
    link: str,
    profile: Path | None,
    placement: Placement,
    *,
    classes: bool = False,
) -> Case:
    """Read a calibration and a profile.

    Notes on stderr say where the trace is of another codec, and where compiled code does not take
    the many decisions that there are.

    Args:
        trace: the router's decisions.
        calibration: file.
        policy: of `asked_policy`.
        link: as the option has it.
        profile: trace file that the policy learns from, or None.
        placement: `auto` of its --host-tokens and its --device-memory become numbers.
        classes: whether compiled code decides for no policy.

    Raises:
        InputError: a file is not what it should be, trace and calibration are of different shapes,
            the codec and bound were not calibrated, the link is no speed, the host cannot
            compute, or the device memory has no room.
    """
    speed = link_speed(link)
    known = load_trace(profile) if profile is not None else None
    figures = read_yaml(calibration, Calibration)
    check_shapes(trace, figures)
    policy = with_memory(policy, placement.device_memory, figures.model)
    stored(figures, policy)  # refuses what was not calibrated before anything is said
    if (trace.info.codec, trace.info.bound) not in {("raw", 0.0), policy.key}:
        typer.echo(
            f"offsim: note: the trace is of a model under {trace.info.codec} "
            f"{trace.info.bound:g}; routing under {policy.storage} may differ",
            err=True,
        )
    pace = resolved(speed, lambda: layer_s(figures), figures.model.expert_bytes)
    policy = with_auto(policy, placement.host_tokens, figures, pace)
    display.note_compiling()
    display.note_classes(policy, trace, always=classes)
    return Case(trace, policy, figures, pace, known)
