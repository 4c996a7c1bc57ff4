"""Product code is made of small functions with few arguments."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = (
    *("onerec", "assets", "onerec_dagster", "resources", "experiments"),
    *("benchmarks", "soak"),
)
MOST_LINES = 60
MOST_ARGUMENTS = 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


def too_large(source: str) -> list[str]:
    """The functions of a module that exceed a limit; decorators count, `self` and `cls` do not."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]
    return [
        f"{node.name} (line {node.lineno}): {lines(node)} lines, {arguments(node)} arguments"
        for node in found
        if lines(node) > MOST_LINES or arguments(node) > MOST_ARGUMENTS
    ]


def lines(node: Function) -> int:
    first = min(part.lineno for part in [node, *node.decorator_list])
    return (node.end_lineno or first) - first + 1


def arguments(node: Function) -> int:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


@pytest.mark.parametrize("package", PRODUCT)
def test_functions_are_small(package: str):
    large = {
        str(file.relative_to(ROOT)): found
        for file in (ROOT / package).rglob("*.py")
        if (found := too_large(file.read_text()))
    }
    assert not large, "split by idea, or group the arguments into a dataclass that means something"


@pytest.mark.parametrize(
    ("source", "is_large"),
    [
        ("def f():\n" + "    x = 1\n" * 59, False),
        ("def f():\n" + "    x = 1\n" * 60, True),
        ("@decorator\ndef f():\n" + "    x = 1\n" * 59, True),
        ("class A:\n    def f(self, a, b, c, d, e, *, g, h, i): ...", False),
        ("def f(a, b, c, d, e, *, g, h, i, j): ...", True),
    ],
)
def test_the_limits_are_seen(source: str, is_large: bool):
    assert bool(too_large(source)) == is_large
