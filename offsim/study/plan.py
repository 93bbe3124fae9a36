"""How much a study does, and how it tells how far it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from offsim.policy.policy import Policy
from offsim.study.calibrate import FULL, QUICK, Effort
from offsim.study.check import Scenario
from offsim.study.prepare import Key

STORAGES: tuple[Key, ...] = (
    ("raw", 0.0),
    ("cuszp", 2.0**-5),
    ("cuszp", 2.0**-4),
    ("sz3", 2.0**-5),
    ("sz3", 2.0**-4),
)
"""Codecs and bounds of the study. Powers of two survive the cast to bf16 without tightening."""

Progress = Callable[[str, float], None]
"""Told what is done next and which share of the whole is done, 0..1."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """A display for one part of the whole, which goes from `start` to `end` of it."""
    return lambda what, share: progress(what, start + share * (end - start))


@dataclass(frozen=True, slots=True)
class Plan:
    """How much a study does.

    Attributes:
        effort: of the calibration.
        requests: of the workload that is run.
        tokens: written for each.
        slots: cache sizes, experts a layer.
        paces: link speeds, as multiples of the pace that imitates the reference machine.
        repeats: runs of each policy.
        items: items a task in the accuracy part.
    """

    effort: Effort
    requests: int
    tokens: int
    slots: tuple[int, ...]
    paces: tuple[float, ...]
    repeats: int
    items: int

    def scenarios(
        self, keys: Sequence[Key], bytes_per_s: float, like: Policy | None = None
    ) -> list[Scenario]:
        """Every codec and bound with every cache size and link speed.

        Args:
            keys: codecs and bounds.
            bytes_per_s: the pace of which `paces` are multiples.
            like: what else the policies are; as a policy is by default.
        """
        base = like or Policy()

        def policy(codec: str, bound: float, slots: int) -> Policy:
            return base.model_copy(update={"codec": codec, "bound": bound, "slots": slots})

        return [
            Scenario(policy(codec, bound, slots), factor * bytes_per_s)
            for codec, bound in keys
            for slots in self.slots
            for factor in self.paces
        ]


FULL_PLAN = Plan(FULL, 3, 24, (2, 4), (0.5, 1.0), 7, 200)
QUICK_PLAN = Plan(QUICK, 2, 12, (2, 4), (0.5, 1.0), 1, 10)
