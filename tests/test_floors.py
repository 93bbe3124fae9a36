"""The packages of offsim stand on floors; a module imports its own floor or one below."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "offsim"
FLOORS = (
    ("errors", "units", "files"),
    ("model", "testbed", "codec", "trace"),
    ("policy", "record", "calibration"),
    ("simulate", "runtime", "accuracy"),
    ("study",),
    ("report", "cli"),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
APART = FLOORS[3]


def modules() -> list[Path]:
    return sorted(
        path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem[0] != "_"
    )


def owner(path: Path) -> str:
    """The top-level package or module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, text: str | None = None) -> Iterator[str]:
    """The parts of offsim that a module imports anywhere in it, as top-level names."""
    tree = ast.parse(path.read_text(encoding="utf-8") if text is None else text)
    package = ["offsim", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "offsim" and len(parts) > 1 and parts[1] in FLOOR_OF:
                yield parts[1]


def graph() -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for path in modules():
        edges.setdefault(owner(path), set()).update(set(imported(path)) - {owner(path)})
    return edges


def test_there_is_something_to_check() -> None:
    assert len(modules()) > 30
    assert "errors" in graph()["codec"]
    assert "trace" in graph()["record"]


def test_the_reader_of_imports_sees_every_form() -> None:
    text = (
        "import offsim.codec.blob\nfrom offsim import trace\nfrom offsim.files import x\n"
        "from . import a\nfrom ..record import b\ndef f():\n    from offsim.model.hook import c\n"
        "from offsim import __version__\nimport numpy\n"
    )
    found = set(imported(PACKAGE / "policy" / "x.py", text))
    assert found == {"codec", "trace", "files", "policy", "record", "model"}


def test_every_part_has_a_floor() -> None:
    assert {owner(path) for path in modules()} <= set(FLOOR_OF)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_from_a_floor_above(path: Path) -> None:
    own = FLOOR_OF[owner(path)]
    above = {name for name in imported(path) if FLOOR_OF[name] > own}
    assert not above, f"{owner(path)} stands below {', '.join(sorted(above))}"


def test_parts_do_not_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(f"offsim parts import each other in a circle: {' -> '.join(error.args[1])}")


def test_simulation_run_and_accuracy_do_not_know_each_other() -> None:
    edges = graph()
    for name in APART:
        assert not edges.get(name, set()) & set(APART), name
