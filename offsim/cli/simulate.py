"""`offsim simulate`: what a policy would take."""

from offsim.cli import display, options
from offsim.cli.groups import Loading, Placement, Storage, grouped
from offsim.cli.precision import LowBelow, LowBlob, loading_low
from offsim.cli.timelines import Timelines


@grouped
def simulate(
    *,
    trace: options.TraceFile,
    calibration: options.CalibrationFile,
    storage: Storage,
    loading: Loading,
    placement: Placement,
    low: LowBlob = None,
    low_below: LowBelow = None,
    link: options.LinkSpeed = "paced",
    engine: options.Engine = options.EngineName.FAST,
    noise: options.Noise = None,
    timelines: Timelines,
    no_band: options.NoBand = False,
    as_json: options.Json = False,
) -> None:
    """Replay a trace under a policy on a calibrated machine.

    Example: offsim simulate --trace out/traces/raw-0.safetensors --calibration
    out/calibration.yaml --codec cuszp --bound 0.0078125 --slots 4 --link 60
    """
    from offsim.cli.case import asked_policy, case_of
    from offsim.cli.policies import described
    from offsim.record import metrics_of
    from offsim.trace import load_trace

    policy = loading_low(asked_policy(storage, loading, placement), low, low_below)
    timelines.check()
    case = case_of(
        load_trace(trace),
        calibration,
        policy,
        link,
        loading.profile,
        placement,
        classes=noise is not None,
    )
    record = case.record(engine.value, noise)
    name = described(case.policy)
    band = {} if no_band else case.band()
    display.show_metrics(name, metrics_of(record), as_json, band)
    model = case.calibration.model.name
    timelines.write(record, name, model, case.link_bytes_per_s, case.kept_bytes)
