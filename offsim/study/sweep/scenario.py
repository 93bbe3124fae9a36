"""One scenario of a sweep: what is simulated on what, and the key of its content."""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from offsim.codec.registry import codec_named
from offsim.errors import InputError
from offsim.files import first_problem
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.registry import prefetcher_named
from offsim.policy.registry import eviction_named
from offsim.study.sweep.inputs import Inputs
from offsim.study.sweep.spec import Strict

Count = Annotated[int, Field(ge=1)]
TRACE, CALIBRATION, HARDWARE = "workload.trace", "calibration", "hardware"
NAMES: dict[str, Callable[[str], object]] = {
    "codec": codec_named,
    "cache": eviction_named,
    "prefetch": prefetcher_named,
}
"""Fields of a policy that name something, and who knows all of these."""


class Workload(Strict):
    """What is replayed.

    Attributes:
        trace: its name in the SPEC.
        requests: the first so many, or the ids of those that are; None for all.
        tokens: output tokens of each request at most; None for all.
        profile: name of a trace that a policy may learn from.
    """

    trace: str
    requests: Count | tuple[Annotated[int, Field(ge=0)], ...] | None = None
    tokens: Count | None = None
    profile: str | None = None


class Scenario(Strict):
    """All that a simulation depends on, but for what the named files have in them.

    Attributes:
        workload: what is replayed.
        calibration: its name in the SPEC.
        link_bytes_per_s: pace of the link, bytes/s; None for the machine's own.
        hardware: other figures of the calibration, by path (`offsim.study.sweep.hardware`).
        policy: codec, bound, cache, prefetcher.
    """

    workload: Workload
    calibration: str
    link_bytes_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    hardware: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    policy: Policy = Policy()


class Entry(NamedTuple):
    """A scenario as the file has it.

    Attributes:
        key: of its content: 32 hex digits.
        config: JSON of a `Scenario`, or of what was given where that is none.
        trace_sha256: of the content of its trace.
        calibration_sha256: of the content of its calibration.
        error: why it is none, in a sentence; None where it can be simulated.
    """

    key: str
    config: str
    trace_sha256: str
    calibration_sha256: str
    error: str | None = None


def entry_of(given: Mapping[str, Any], inputs: Inputs) -> Entry:
    """The scenario that is given these values.

    Args:
        given: by field, such as `policy.slots`.
        inputs: that the SPEC names.

    Raises:
        InputError: there is no such field, no scenario can have such a value in it, or trace or
            calibration are missing. Values that do not go together are an entry with an error.
    """
    for field in (TRACE, CALIBRATION):
        if given.get(field) is None:
            raise InputError(f"a scenario has no {field}; give it in `fixed` or `vary`")
    tree = _tree(given)
    error = None
    try:
        tree = Scenario.model_validate(tree).model_dump(mode="json")
    except ValidationError as problem:
        _check_single(problem)
        error = f"policy: {problem.errors()[0]['msg'].removeprefix('Value error, ')}"
    _check_names(tree, inputs)
    if error is None:  # as calibrations write it
        tree["policy"]["codec"] = str(codec_named(tree["policy"]["codec"]))
    return Entry(
        key_of(tree, inputs),
        text_of(tree),
        inputs.trace_digests[tree["workload"]["trace"]],
        inputs.calibration_digests[tree["calibration"]],
        error,
    )


def key_of(config: Mapping[str, Any], inputs: Inputs) -> str:
    """32 hex digits that are the same where the content is the same: files, values and engine."""
    workload = config["workload"]
    content = {
        **config,
        "engine": inputs.engine,
        "calibration": inputs.calibration_digests[config["calibration"]],
        "workload": {
            **workload,
            "trace": inputs.trace_digests[workload["trace"]],
            "profile": inputs.trace_digests.get(workload.get("profile")),
        },
    }
    return sha256(text_of(content).encode()).hexdigest()[:32]


def text_of(value: Any) -> str:
    """JSON that is the same where the value is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _tree(given: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values from `policy.transfer.chunk_bytes`; a path of hardware stays whole."""
    tree: dict[str, Any] = {}
    for field, value in given.items():
        above, last = field.split("."), ""
        if above[0] == HARDWARE and len(above) > 1:
            above, last = above[:1], ".".join(above[1:])
        else:
            last = above.pop()
        branch = tree
        for name in above:
            branch = branch.setdefault(name, {})
            if not isinstance(branch, dict):
                raise InputError(f"{field} is given beside all of {name}; give one of the two")
        if isinstance(branch.get(last), dict):
            raise InputError(f"{field} is given beside a part of it; give one of the two")
        branch[last] = value
    return tree


def _check_single(problem: ValidationError) -> None:
    """Refuse a value that is wrong by itself, and a field that is none."""
    for error in problem.errors():
        field = ".".join(map(str, error["loc"]))
        if error["type"] == "extra_forbidden":
            raise InputError(f"no scenario has a field {field}; docs/sweep.md names them")
        if error["type"] == "missing":
            raise InputError(f"a scenario lacks {field}; give it in `fixed` or `vary`")
        if error["type"] != "value_error" or not isinstance(error["input"], dict):
            raise InputError(first_problem(problem))


def _check_names(tree: Mapping[str, Any], inputs: Inputs) -> None:
    """Refuse a name that nobody knows.

    Raises:
        InputError: of a trace, a calibration, a codec, a cache or a prefetcher.
    """
    workload, policy = tree["workload"], tree["policy"]
    for field, name, known in (
        ("calibration", tree["calibration"], inputs.calibrations),
        ("workload.trace", workload["trace"], inputs.traces),
        ("workload.profile", workload.get("profile"), inputs.traces),
    ):
        if name not in known and (name is not None or field != "workload.profile"):
            raise InputError(f"{field} is {name!r}; the SPEC names {', '.join(known)}")
    for field, find in NAMES.items():
        if field in policy:
            try:
                find(policy[field])
            except InputError as error:
                raise InputError(f"policy.{field}: {error}") from error
