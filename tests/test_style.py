"""Rules of the house that no linter checks in this form."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "offsim"
LONGEST = 500
MODULES = sorted(PACKAGE.rglob("*.py"))
EACH_MODULE = pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE))
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def methods_of(node: ast.ClassDef) -> list[Function]:
    return [part for part in node.body if isinstance(part, Function)]


def classes() -> dict[str, ast.ClassDef]:
    found = (node for path in MODULES for node in ast.walk(tree_of(path)))
    return {node.name: node for node in found if isinstance(node, ast.ClassDef)}


CLASSES = classes()


def is_documented_above(node: ast.ClassDef, method: str) -> bool:
    """Whether a base class, in offsim, has a docstring for this method."""
    names = {base.id for base in node.bases if isinstance(base, ast.Name)}
    bases = [CLASSES[name] for name in names if name in CLASSES]
    return any(
        any(m.name == method and ast.get_docstring(m) for m in methods_of(base))
        or is_documented_above(base, method)
        for base in bases
    )


def undocumented(body: list[ast.stmt]) -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for node in body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for method in methods_of(node):
                if method.name.startswith("_") or ast.get_docstring(method):
                    continue
                if not is_documented_above(node, method.name):
                    yield f"{node.name}.{method.name}"


@EACH_MODULE
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), "the module has none"
    assert list(undocumented(tree.body)) == []


@EACH_MODULE
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_check_finds_what_lacks_a_docstring() -> None:
    text = """
class Codec:
    "Has one."
    def encode(self): "Has one."
    def new(self): ...
class Other(Codec):
    def encode(self): ...
    def _own(self): ...
    @property
    def size(self): ...
def f(): ...
def _g(): ...
"""
    found = list(undocumented(ast.parse(text).body))
    assert found == ["Codec.new", "Other", "Other.size", "f"]
