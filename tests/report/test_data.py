import json
from pathlib import Path

import pandas as pd
import pytest

from offsim.errors import FormatError, InputError
from offsim.report.data import load_study

NAMES = (
    "summary.json",
    "calibration.yaml",
    "check.csv",
    "breakdown.csv",
    "accuracy.csv",
    "codecs.csv",
    "curve.csv",
    "compute.csv",
    "link.csv",
    "usage.csv",
    "traces/raw-0.safetensors",
)


def test_reads_everything(study_folder: Path) -> None:
    data = load_study(study_folder)
    assert len(data.check) == data.summary["policies_checked"] == 12
    assert data.calibration.model.name == data.trace.info.model == "toy"
    assert data.accuracy["bits_a_character"].notna().sum() == 3


def test_further_columns_and_facts_are_allowed(study_folder: Path) -> None:
    table = pd.read_csv(study_folder / "check.csv")
    table.assign(energy_j=1.0).to_csv(study_folder / "check.csv", index=False)
    facts = json.loads((study_folder / "summary.json").read_text())
    (study_folder / "summary.json").write_text(json.dumps({**facts, "mood": "good"}))
    data = load_study(study_folder)
    assert "energy_j" in data.check
    assert data.summary["mood"] == "good"


def test_a_study_without_bands(study_folder: Path) -> None:
    table = pd.read_csv(study_folder / "check.csv")
    ends = [column for column in table.columns if column.endswith(("_low", "_high"))]
    table.drop(columns=ends).to_csv(study_folder / "check.csv", index=False)
    data = load_study(study_folder)
    assert data.check[ends].isna().all(axis=None)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: .*offsim study --out DIR"):
        load_study(tmp_path / "nowhere")


@pytest.mark.parametrize("name", NAMES)
def test_missing_file(study_folder: Path, name: str) -> None:
    (study_folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: .*offsim study --out DIR"):
        load_study(study_folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00 broken", b'{"a": '])
def test_broken_file(study_folder: Path, name: str, content: bytes) -> None:
    (study_folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*offsim study --out DIR") as caught:
        load_study(study_folder)
    assert "\n" not in str(caught.value)


def test_missing_column(study_folder: Path) -> None:
    table = pd.read_csv(study_folder / "check.csv")
    table.drop(columns="tpot_error").to_csv(study_folder / "check.csv", index=False)
    with pytest.raises(FormatError, match=r"check\.csv: the column tpot_error is missing"):
        load_study(study_folder)


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("tpot_measured", "fast", "not of numbers"),
        ("tpot_low", "fast", "not of numbers"),
        ("decisions_equal", "perhaps", "not of true and false"),
        ("tpot_measured", "", "without a finite number"),
        ("slots", "inf", "without a finite number"),
        ("codec", "", "empty cell"),
    ],
)
def test_wrong_column(study_folder: Path, column: str, value: str, why: str) -> None:
    table = pd.read_csv(study_folder / "check.csv").astype({column: object})
    table.loc[0, column] = value
    table.to_csv(study_folder / "check.csv", index=False)
    with pytest.raises(FormatError, match=rf"check\.csv: the column {column} .*{why}"):
        load_study(study_folder)


def test_table_without_rows(study_folder: Path) -> None:
    table = pd.read_csv(study_folder / "curve.csv")
    table.head(0).to_csv(study_folder / "curve.csv", index=False)
    with pytest.raises(FormatError, match=r"curve\.csv: the table has no rows"):
        load_study(study_folder)


def test_missing_fact(study_folder: Path) -> None:
    facts = json.loads((study_folder / "summary.json").read_text())
    del facts["link_imitates"]
    (study_folder / "summary.json").write_text(json.dumps(facts))
    with pytest.raises(FormatError, match=r"summary\.json: link_imitates"):
        load_study(study_folder)


def test_files_of_different_studies(study_folder: Path) -> None:
    table = pd.read_csv(study_folder / "breakdown.csv")
    table[table["scenario"] != "raw 0"].to_csv(study_folder / "breakdown.csv", index=False)
    with pytest.raises(FormatError, match=r"breakdown\.csv: its scenarios"):
        load_study(study_folder)
    check = pd.read_csv(study_folder / "check.csv")
    check.head(5).to_csv(study_folder / "check.csv", index=False)
    with pytest.raises(FormatError, match=r"summary\.json: policies_checked is 12"):
        load_study(study_folder)
