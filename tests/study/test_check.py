import pytest
from transformers import PreTrainedModel

from offsim.calibration.replicates import replicates_of
from offsim.calibration.uncertainty import InnerRun
from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.runtime import ExpertStore
from offsim.study.breakdown import breakdown
from offsim.study.check import Checker, Scenario, comparison, summary
from offsim.study.prepare import recorded
from offsim.study.subject import ModelSubject
from tests.builders import calibration, codec_figures

PROMPTS = [[10, 40, 41, 42], [10, 60]]


def test_a_check_compares_what_was_predicted_with_what_was_run(
    tiny_model: PreTrainedModel,
) -> None:
    keys = [("raw", 0.0), ("cuszp", 2.0**-8)]
    stores = {key: ExpertStore.of(tiny_model, codec_named(key[0]), key[1]) for key in keys}
    recordings = {key: recorded(tiny_model, "tiny", s, PROMPTS, 4) for key, s in stores.items()}
    figures = calibration(*(codec_figures(*key) for key in keys))
    scenarios = [Scenario(Policy(codec=c, bound=b, slots=2), 1e8) for c, b in keys]
    checker = Checker(ModelSubject(tiny_model, "tiny"), scenarios, stores, PROMPTS, 4)
    checker.repeat()
    checker.repeat()
    checked = checker.compare(recordings, figures)

    assert [one.decisions_equal for one in checked] == [True, True]
    assert [one.tokens_equal for one in checked] == [True, True]
    assert [len(one.repeats) for one in checked] == [2, 2]
    table = comparison(checked)
    row = table.iloc[0]
    assert row["tpot_error"] == pytest.approx(row["tpot_simulated"] / row["tpot_measured"] - 1)
    assert row["hit_rate_simulated"] == row["hit_rate_measured"]
    assert row["bytes_measured"] == checked[0].measured.link_bytes
    facts = summary(table)
    assert facts["policies_checked"] == 2
    assert facts["decision_logs_equal"] is True
    assert facts["tpot_error_max"] >= facts["tpot_error_median"] > 0  # the made-up figures are off
    parts = breakdown(checked)
    for one in checked:
        named = parts[(parts.scenario == str(one.scenario)) & (parts.label == "SIMULATED")]
        assert named.seconds.sum() == pytest.approx(one.predicted.tpot_s)


def test_what_is_measured_is_held_against_the_band(tiny_model: PreTrainedModel) -> None:
    """Everything that a factor of a million covers is covered, and nothing that is alike."""
    key = ("raw", 0.0)
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    recording = recorded(tiny_model, "tiny", store, PROMPTS, 4)
    subject = ModelSubject(tiny_model, "tiny")
    checker = Checker(subject, [Scenario(Policy(slots=2), 1e8)], {key: store}, PROMPTS, 4)
    checker.repeat()
    plain = calibration()
    bare = comparison(checker.compare({key: recording}, plain))
    assert bare[["tpot_low", "tpot_high"]].isna().all(axis=None)
    assert (summary(bare)["covered"], summary(bare)["band_level"]) == (None, None)
    for rounds, share in (([1.0] * 3, 0.0), ([1e-6, 1e-3, 1.0], 1.0)):
        rows = [(factor,) * 8 for factor in rounds]
        run = InnerRun(run="raw", prefill=rows, decode=rows)
        known = replicates_of(plain, [plain] * 8)
        sure = plain.model_copy(update={"replicates": known, "inner_runs": [run]})
        table = comparison(checker.compare({key: recording}, sure))
        row = table.iloc[0]
        assert row["tpot_low"] <= row["tpot_simulated"] <= row["tpot_high"]
        facts = summary(table)
        assert facts["covered"] == dict.fromkeys(("ttft", "tpot", "itl_p95", "throughput"), share)
        assert facts["band_level"] == 0.9


@pytest.mark.parametrize("prefetch", ["gate", "last-token", "transition", "popularity"])
def test_what_is_prefetched_is_checked(tiny_model: PreTrainedModel, prefetch: str) -> None:
    key = ("raw", 0.0)
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    recording = recorded(tiny_model, "tiny", store, PROMPTS, 4, lookahead=2)
    size = store.shape.bytes
    facts = calibration(codec_figures(blob_bytes=size))
    model = facts.model.model_copy(
        update={"hidden": store.shape.hidden, "width": store.shape.width}
    )
    scenario = Scenario(Policy(slots=2, prefetch=prefetch, distance=2), 1e8)
    checker = Checker(
        ModelSubject(tiny_model, "tiny"), [scenario], {key: store}, PROMPTS, 4, recording.trace
    )
    checker.repeat()
    checker.repeat()
    checked = checker.compare({key: recording}, facts.model_copy(update={"model": model}))
    assert checked[0].decisions_equal
    assert checked[0].tokens_equal
    table = comparison(checked)
    row = table.iloc[0]
    assert (row["prefetch"], row["distance"]) == (prefetch, 2)
    assert row["prefetch_bytes_measured"] == row["prefetch_bytes_simulated"] > 0
    assert summary(table)["bytes_equal"] is True


def test_a_policy_that_needs_a_profile_is_not_run_without_one(tiny_model: PreTrainedModel) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    scenario = Scenario(Policy(slots=2, prefetch="popularity"), 1e8)
    checker = Checker(
        ModelSubject(tiny_model, "tiny"), [scenario], {("raw", 0.0): store}, PROMPTS, 4
    )
    with pytest.raises(InputError, match="popularity needs a profile"):
        checker.repeat()


def test_a_different_decision_is_noticed(tiny_model: PreTrainedModel) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    other = recorded(tiny_model, "tiny", store, [[10, 99, 98, 97], [10, 5]], 4)
    scenario = Scenario(Policy(slots=2), 1e9)
    checker = Checker(
        ModelSubject(tiny_model, "tiny"), [scenario], {("raw", 0.0): store}, PROMPTS, 4
    )
    checker.repeat()
    (one,) = checker.compare({("raw", 0.0): other}, calibration())
    assert not one.decisions_equal
    assert not one.tokens_equal


def test_one_policy_has_no_rank() -> None:
    import pandas as pd

    row = {
        "tpot_simulated": 1.0, "tpot_measured": 2.0, "tpot_error": -0.5, "tpot_spread": 0.0,
        "ttft_error": 0.1, "decisions_equal": True, "tokens_equal": True,
        "bytes_simulated": 1, "bytes_measured": 1,
        "prefetch_bytes_simulated": 1, "prefetch_bytes_measured": 1,
        "wasted_bytes_simulated": 1, "wasted_bytes_measured": 0,
    }  # fmt: skip
    facts = summary(pd.DataFrame([row]))
    assert facts["bytes_equal"] is False
    assert facts["kendall_tau"] is None
    assert facts["tpot_error_max"] == 0.5
