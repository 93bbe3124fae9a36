import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from offsim.errors import InputError
from offsim.report import page as report_page
from offsim.report import write_report

FIGURES = (
    "accuracy",
    "breakdown",
    "calibration",
    "compute",
    "policies",
    "predicted",
    "rate_distortion",
    "usage",
)
EMPTY = {"img", "meta", "br", "link", "input", "hr"}


class _Page(HTMLParser):
    """Collects links, images and text, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                (self.images if tag == "img" else self.links).append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _read(path: Path) -> _Page:
    return _Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty figures, for tests of the text alone."""

    def empty(_: object) -> dict[str, Figure]:
        figures = {name: Figure(figsize=(1, 1)) for name in FIGURES}
        for name, figure in figures.items():
            figure.suptitle(name)
        return figures

    monkeypatch.setattr(report_page, "_figures", empty)


def _change(path: Path, **facts: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_page_is_whole_and_alone(study_folder: Path) -> None:
    path = write_report(study_folder)
    assert path == study_folder / "report.html"
    page = _read(path)
    assert not page.open
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.images) == len(FIGURES)
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    assert "script" not in page.tags
    assert "://" not in re.sub(r"base64,[^\"]*", "", path.read_text(encoding="utf-8"))
    assert "url(" not in path.read_text(encoding="utf-8")
    files = sorted((study_folder / "figures").iterdir())
    assert [file.name for file in files] == [f"{name}.png" for name in FIGURES]
    embedded = {base64.b64decode(image.partition(",")[2]) for image in page.images}
    assert embedded == {file.read_bytes() for file in files}
    assert not list(study_folder.rglob("*.partial"))
    first = path.read_bytes()
    assert write_report(study_folder).read_bytes() == first


@pytest.mark.usefixtures("undrawn")
def test_labels_and_sections(study_folder: Path) -> None:
    path = write_report(study_folder)
    text, page = path.read_text(encoding="utf-8"), _read(path)
    for label in ("MEASURED", "SIMULATED", "ESTIMATED"):
        assert f'<span class="badge {label.lower()}">{label}</span>' in text
    for heading in (
        "Machine and calibration",
        "Codecs",
        "The workload's routing",
        "Policies compared",
        "Where the time goes",
        "Predicted against measured",
        "Accuracy at each bound",
        "What to be careful about",
        "Versions",
    ):
        assert heading in page.text
    assert "2⁻⁷" in page.text
    assert "0.003" in page.text


@pytest.mark.usefixtures("undrawn")
def test_answer_is_computed(study_folder: Path) -> None:
    answer = _read(write_report(study_folder)).text
    assert "12 policies were run 3 times each, between the rounds of a calibration" in answer
    assert "off by 2.0 % in the median and 12.0 % at worst" in answer
    assert "within 5 % for 8 of 12" in answer
    assert "the measured TPOT of 8 of 12 policies and the TTFT of 8" in answer
    assert "Kendall's tau between the simulated and the measured order of TPOT is 0.900" in answer
    # 4 ms + 0.3 / (60 x 3) s against 8 ms + the same
    assert "cuszp 2⁻⁷, 3 slots: 5.67 ms a token measured, against 9.67 ms for raw" in answer
    assert "mean ICA over the tasks is 75.0 % against 85.0 % without loss" in answer
    assert "do NOT" not in answer
    assert "slower than the imitated link 533 times" in answer


@pytest.mark.usefixtures("undrawn")
def test_bad_news_is_told(study_folder: Path) -> None:
    _change(
        study_folder / "summary.json",
        kendall_tau=None,
        decision_logs_equal=False,
        tokens_equal=False,
        every_expert_within_its_bound=False,
        repeats=1,
    )
    text = _read(write_report(study_folder)).text
    assert "is not defined for so few" in text
    assert "The decision logs of the runs do NOT all equal the simulated ones" in text
    assert "did NOT write" in text
    assert "A bound was broken" in text
    assert "Each policy ran once" in text


@pytest.mark.usefixtures("undrawn")
def test_large_errors_are_marked(study_folder: Path) -> None:
    text = write_report(study_folder).read_text(encoding="utf-8")
    assert '<td class="number marked">-12.0 %</td>' in text
    assert re.search(r'<td class="number marked">[\d.]+ to [\d.]+</td>', text)
    assert re.search(r'<td class="number">[\d.]+ to [\d.]+</td>', text)
    assert "within the 90 % band" in text


def test_a_study_without_bands(study_folder: Path) -> None:
    table = pd.read_csv(study_folder / "check.csv")
    ends = [column for column in table.columns if column.endswith(("_low", "_high"))]
    table.drop(columns=ends).to_csv(study_folder / "check.csv", index=False)
    text = write_report(study_folder).read_text()
    assert "n/a" in text
    assert "The band of 90 %" not in text
    assert '<td class="number">+2.0 %</td>' in text


@pytest.mark.usefixtures("undrawn")
def test_study_without_a_lossy_codec(study_folder: Path) -> None:
    for name in ("check", "breakdown", "accuracy", "codecs"):
        table = pd.read_csv(study_folder / f"{name}.csv")
        column = "scenario" if name == "breakdown" else "codec"
        kept = table[table[column].str.startswith("raw")]
        kept.to_csv(study_folder / f"{name}.csv", index=False)
    _change(study_folder / "summary.json", policies_checked=4)
    assert "fastest policy with an error bound" not in _read(write_report(study_folder)).text


def test_values_are_escaped(study_folder: Path) -> None:
    _change(study_folder / "summary.json", model="<script>alert('x')</script>")
    table = pd.read_csv(study_folder / "accuracy.csv")
    table["task"] = table["task"].replace("add", "<b>&")
    table.to_csv(study_folder / "accuracy.csv", index=False)
    path = write_report(study_folder)
    assert "<script" not in path.read_text(encoding="utf-8")
    page = _read(path)
    assert "<script>alert('x')</script>" in page.text
    assert "<b>&" in page.text


@pytest.mark.usefixtures("undrawn")
def test_elsewhere(study_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "mine.html"
    assert write_report(study_folder, out) == out
    assert (tmp_path / "pages" / "figures" / "usage.png").is_file()
    assert not (study_folder / "report.html").exists()


def test_nothing_is_written_of_a_broken_study(study_folder: Path) -> None:
    (study_folder / "curve.csv").unlink()
    with pytest.raises(InputError, match=r"curve\.csv"):
        write_report(study_folder)
    assert not (study_folder / "report.html").exists()
    assert not (study_folder / "figures").exists()


@pytest.mark.usefixtures("undrawn")
def test_place_that_cannot_be_written(study_folder: Path) -> None:
    (study_folder / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(study_folder, study_folder / "file" / "report.html")
