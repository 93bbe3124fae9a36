"""What a probe is, and what it finds."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

from offsim.errors import InputError

State: TypeAlias = Literal["works", "missing", "FAILS", "fact"]
AGAIN = "install offsim again, with all that it requires"
LONGEST = 240
"""Characters of an error that are shown."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe found.

    Attributes:
        state: `works`, after a try; `missing`, where something is not there; `FAILS`, where it is
            there and does not do what it should; `fact`, which is none of these.
        here: what there is, in a few words.
        remedy: what to do; empty where there is nothing to do.
    """

    state: State
    here: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        if self.state == "fact":
            return self.here
        return f"{self.state}: {self.here}" if self.here else self.state


@dataclass(frozen=True, slots=True)
class Probe:
    """One row.

    Attributes:
        what: its name.
        look: finds out. InputError says what is missing and, after its last semicolon, what to do.
        beside: whether it waits for another process, so that others are looked at meanwhile.
    """

    what: str
    look: Callable[[], Found]
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that belong together.

    Attributes:
        title: of them.
        probes: gives them; it may raise whatever it likes.
    """

    title: str
    probes: Callable[[], Iterable[Probe]]


@dataclass(frozen=True, slots=True)
class Row:
    """What is shown of a probe.

    Attributes:
        group: title of its group.
        what: its name.
        found: what it found.
        seconds: that it took, s.
    """

    group: str
    what: str
    found: Found
    seconds: float


def fact(here: str, remedy: str = "") -> Found:
    """What is neither good nor bad."""
    return Found("fact", here, remedy)


def works(here: str = "") -> Found:
    """What was tried, and does what it should."""
    return Found("works", here)


def missing(here: str = "", remedy: str = "") -> Found:
    """What is not there."""
    return Found("missing", here, remedy)


def fails(here: str, remedy: str = "") -> Found:
    """What is there and does not do what it should."""
    return Found("FAILS", here, remedy)


def refusal(error: InputError) -> Found:
    """What is missing by an error of offsim, whose last part says what to do."""
    here, _, remedy = str(error).rpartition("; ")
    return missing(here, remedy.removeprefix("run: ")) if here else missing(remedy)


def examine(
    groups: Sequence[Group], progress: Callable[[str, float], None] = lambda *_: None
) -> list[Row]:
    """Look at everything, in order; nothing that a probe raises comes through.

    Args:
        groups: of rows.
        progress: told what is looked at next and which share is done, 0..1.
    """
    rows: list[tuple[str, str, Future[tuple[Found, float]]]] = []
    with ThreadPoolExecutor() as threads:
        for number, group in enumerate(groups):
            progress(f"looking at {group.title}", number / len(groups))
            for probe in _probes(group):
                begun = threads.submit(_timed, probe)
                if not probe.beside:
                    begun.result()
                rows.append((group.title, probe.what, begun))
    return [Row(title, what, *begun.result()) for title, what, begun in rows]


def _probes(group: Group) -> list[Probe]:
    """Those of a group, or one that tells why there are none."""
    try:
        return list(group.probes())
    except Exception as error:  # a library that names of rows come from
        raised = error

    def again() -> Found:
        raise raised

    return [Probe(group.title, again)]


def _timed(probe: Probe) -> tuple[Found, float]:
    start = time.perf_counter()
    return _looked(probe), time.perf_counter() - start


def _looked(probe: Probe) -> Found:
    try:
        return probe.look()
    except InputError as error:
        return refusal(error)
    except Exception as error:  # whatever a machine does that nobody has thought of
        return _raised(error)


def _raised(error: Exception) -> Found:
    """What an error that nobody expected says of this machine."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return missing(f"no module {error.name}", AGAIN)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return fails(text if len(text) <= LONGEST else text[: LONGEST - 3] + "...")
