from offsim.policy.policy import Policy
from offsim.record import RunRecord
from offsim.runtime.run import Run
from offsim.study.rounds import InnerRuns, Rounds, drawn


class Sampler:
    def __init__(self) -> None:
        self.single = Rounds([1, 2, 3])
        self.several = [Rounds("abc"), Rounds("def")]
        self.named = {"x": Rounds([[1], [2], [3]])}
        self.same = [7, 8]


def test_some_rounds_stand_for_all() -> None:
    sampler = Sampler()
    part = drawn(sampler, [2, 0, 2])
    assert isinstance(part, Sampler)
    assert part.single == [3, 1, 3]
    assert part.several == [["c", "a", "c"], ["f", "d", "f"]]
    assert part.named == {"x": [[3], [1], [3]]}
    assert part.same == [7, 8]
    assert sampler.single == [1, 2, 3], "the sampler itself goes on with all"


def test_runs_are_noted_by_policy_and_link() -> None:
    noted = InnerRuns()
    runs = [Run(RunRecord("MEASURED")) for _ in range(4)]
    for number, run in enumerate(runs):
        noted.note(Policy(slots=number % 2), None if number % 2 else 5e7, run)
    assert [str(one) for one in noted] == ["raw, lru 0, 50 MB/s", "raw, lru 1, plain link"]
    assert [one.runs for one in noted] == [[runs[0], runs[2]], [runs[1], runs[3]]]
