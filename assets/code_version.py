"""The code version of an asset: a hash of the code that it can run, found by following imports.

An asset starts from its own function. What that function names in its module, and in other modules
of `assets`, `resources` and `onerec.config`, counts definition by definition; another module of the
core that any of them imports, at its top or inside a function, counts whole, and so does all that
it imports in turn. Comments, docstrings, imports for type checkers and declarations of settings do
not count: the values of settings are part of an artifact's key. What is computed from settings, by
a method or a function of `onerec.config`, counts; a method is found by its name, whatever it is
called on. Nothing is executed or imported.

Following imports takes more than a second, in every process that loads the assets. So the versions
of unchanged sources are kept in the state of the data set.
"""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from resources.settings import CHECKOUT, load_settings

PACKAGES = ("onerec", "assets", "resources", "experiments")
SETTINGS = "onerec.config"
BY_DEFINITION = ("assets", "resources", SETTINGS)
"""Packages of whose modules only the definitions in use count."""
SETTINGS_BASE = "ValidatedConfig"
"""A class with this base declares settings."""
NOT_COUNTED = {
    "assets.code_version": "this file",
    "assets.support": "how assets are declared and reported",
    "onerec.config.fields": "checks of a setting's value",
    "onerec.config.limits": "upper limits of settings",
    "onerec.config.presets": "values of settings, which are part of an artifact's key",
    "onerec.report": "tables and drawings of the UI and of the terminal",
    "resources.settings": "settings, as above",
}
"""Modules that change no result, and why."""


class Unit(NamedTuple):
    """A module, or one definition of a module."""

    module: str
    name: str | None = None


def code_version(module: str, *names: str, root: Path = CHECKOUT, also: Iterable[str] = ()) -> str:
    """Hash of the code that definitions of a module can run.

    Args:
        module: Its name, `assets.reward`.
        names: The definitions.
        root: Directory of the packages.
        also: Further files below it, whole: a page's template and what draws on it, which change
            no result of other assets and so are not counted there.

    Raises:
        ValueError: The module does not define a name.
    """
    contents = [(root / file).read_bytes() for file in also]
    if root != CHECKOUT:
        return _computed(module, names, root, contents)
    _sources()  # before anything is computed: a source that changes meanwhile has another hash
    kept, key = _kept_versions(), f"{module} {names} {_digest(contents)}"
    if key not in kept:
        kept[key] = _computed(module, names, root, contents)
        _keep(kept)
    return kept[key]


def _computed(module: str, names: Iterable[str], root: Path, also: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for unit, source in sorted(reachable_code(module, *names, root=root).items(), key=str):
        digest.update(f"{unit}\n{source}\n".encode())
    for content in also:
        digest.update(content)
    return digest.hexdigest()[:12]


def _digest(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


@cache
def _kept_file() -> Path:
    return load_settings().root / "code_versions.json"


@cache
def _sources() -> str:
    """Hash of all sources that a version could depend on, and of the parser."""
    files = [f for package in PACKAGES for f in sorted((CHECKOUT / package).rglob("*.py"))]
    named = ((str(f.relative_to(CHECKOUT)).encode(), f.read_bytes()) for f in files)
    return _digest([sys.version.encode(), *(part for pair in named for part in pair)])


@cache
def _kept_versions() -> dict[str, str]:
    """Versions that were computed from the same sources; a file that cannot be read has none."""
    try:
        kept = json.loads(_kept_file().read_text())
        versions = kept["versions"] if kept["sources"] == _sources() else {}
        return {str(key): str(version) for key, version in versions.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(versions: Mapping[str, str]) -> None:
    """Write the file anew; it is only a shortcut, so where it cannot be written nothing is lost."""
    aside = _kept_file().with_name(f"{_kept_file().name}.{os.getpid()}")
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps({"sources": _sources(), "versions": dict(versions)}))
        os.replace(aside, _kept_file())
    except OSError:
        aside.unlink(missing_ok=True)


def reachable_code(module: str, *names: str, root: Path = CHECKOUT) -> dict[Unit, str]:
    """Everything that definitions of a module can run, with the hash of its source.

    Arguments and errors as `code_version`.
    """
    tree = _SourceTree(root)
    for name in names:
        if name not in tree.module(module).definitions:
            raise ValueError(f"name={name!r}: {module} defines no such thing")
    found: dict[Unit, str] = {}
    waiting = [Unit(module, name) for name in names]
    while waiting:
        unit = waiting.pop()
        if unit in found or _is_not_counted(unit.module):
            continue
        source = tree.module(unit.module)
        found[unit] = _hash(source, unit.name)
        waiting += tree.references(unit, source)
    return found


def _is_not_counted(module: str) -> bool:
    return _is_within(module, NOT_COUNTED)


def _is_within(module: str, packages: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)


@dataclass(frozen=True, eq=False)
class _SourceTree:
    """The packages below a directory."""

    root: Path
    files: dict[str, Path | None] = field(default_factory=dict)

    def file(self, module: str) -> Path | None:
        """The file of a module of the project; None where there is none."""
        if module.split(".")[0] not in PACKAGES:
            return None
        if module not in self.files:
            base = self.root.joinpath(*module.split("."))
            candidates = (base.with_suffix(".py"), base / "__init__.py")
            self.files[module] = next((file for file in candidates if file.is_file()), None)
        return self.files[module]

    def module(self, name: str) -> "_Module":
        file = self.file(name)
        assert file is not None, name
        return _parsed(name, file.read_text(encoding="utf-8"))

    @cached_property
    def settings_methods(self) -> dict[str, list[Unit]]:
        """The classes of settings that have a method or property, by its name."""
        found: dict[str, list[Unit]] = {}
        for file in sorted(self.root.joinpath(*SETTINGS.split(".")).glob("*.py")):
            module = f"{SETTINGS}.{file.stem}"
            if file.stem == "__init__" or _is_not_counted(module):
                continue
            for cls in (c for c in self.module(module).tree.body if isinstance(c, ast.ClassDef)):
                for method in (m for m in cls.body if isinstance(m, ast.FunctionDef)):
                    found.setdefault(method.name, []).append(Unit(module, cls.name))
        return found

    def references(self, unit: Unit, source: "_Module") -> Iterator[Unit]:
        """What a unit imports or names, as units."""
        for node in _followed(source, unit.name):
            if isinstance(node, ast.Name):
                yield Unit(unit.module, node.id)
            elif isinstance(node, ast.Attribute):
                yield from self.settings_methods.get(node.attr, ())
            elif isinstance(node, ast.Constant):
                name = str(node.value)
                yield from self._module_and_parents(name) if self.file(name) else ()
            else:
                yield from self._imported(node)

    def _imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[Unit]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from self._module_and_parents(alias.name)
            return
        assert node.module is not None, "imports are absolute"
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            if self.file(submodule) is not None:
                yield from self._module_and_parents(submodule)
            elif _is_within(node.module, BY_DEFINITION):
                yield Unit(node.module, alias.name)
            else:
                yield from self._module_and_parents(node.module)

    def _module_and_parents(self, module: str) -> Iterator[Unit]:
        """A module of the project and the packages around it, whose `__init__` runs first."""
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if self.file(name) is not None:
                yield Unit(name)


@dataclass(frozen=True, eq=False)
class _Module:
    """A parsed module, without docstrings and imports for type checkers."""

    name: str
    tree: ast.Module

    @cached_property
    def definitions(self) -> Mapping[str, list[ast.stmt]]:
        """Statements at the top of the module by the name they define or import."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in _names_defined_by(statement):
                found.setdefault(name, []).append(statement)
        return found

    def nodes(self, name: str | None) -> list[ast.stmt]:
        """The statements of a definition; all of the module for None."""
        if name is None:
            return self.tree.body
        statements = []
        for statement in self.definitions.get(name, []):
            if isinstance(statement, ast.ImportFrom):
                chosen = [a for a in statement.names if (a.asname or a.name) == name]
                statement = ast.ImportFrom(statement.module, chosen, statement.level)
            statements.append(statement)
        return statements


@cache
def _parsed(name: str, text: str) -> _Module:
    stripper = _SettingsStripper() if _is_within(name, [SETTINGS]) else _Stripper()
    return _Module(name, stripper.visit(ast.parse(text)))


@cache
def _hash(module: _Module, name: str | None) -> str:
    dumped = "\n".join(map(ast.dump, module.nodes(name)))
    return hashlib.sha256(dumped.encode()).hexdigest()


@cache
def _followed(
    module: _Module, name: str | None
) -> list[ast.Import | ast.ImportFrom | ast.Constant | ast.Name | ast.Attribute]:
    """Nodes by which a module, or one of its definitions, may reach other code."""
    found = []
    for statement in module.nodes(name):
        for node in ast.walk(statement):
            is_followed = isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute)
            if is_followed or _may_be_a_module(node) or _is_another_definition(node, module, name):
                found.append(node)
    return found


def _may_be_a_module(node: ast.AST) -> bool:
    """A text such as "onerec.training": imported by `importlib`, or run by `python -m`."""
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        return False
    parts = node.value.split(".")
    return parts[0] in PACKAGES and len(parts) > 1 and all(map(str.isidentifier, parts))


def _is_another_definition(node: ast.AST, module: _Module, name: str | None) -> bool:
    """Of a whole module every definition counts already."""
    if name is None or not isinstance(node, ast.Name):
        return False
    return node.id != name and node.id in module.definitions


def _names_defined_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name):
                    yield node.id


class _Stripper(ast.NodeTransformer):
    """Takes out what changes no result: bare texts, `if TYPE_CHECKING:`, Dagster's decorators."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [d for d in node.decorator_list if not _is_dagster(d)]
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if is_typing else self.generic_visit(node)


class _SettingsStripper(_Stripper):
    """The same without the fields of classes of settings, and without their checks."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any(isinstance(base, ast.Name) and base.id == SETTINGS_BASE for base in node.bases):
            node.body = [part for part in node.body if not _declares_settings(part)]
        return self.generic_visit(node)


def _declares_settings(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef):
        return statement.name == "__post_init__"
    return isinstance(statement, ast.AnnAssign)


def _is_dagster(decorator: ast.expr) -> bool:
    """`@dg.asset(...)`: its group, pool and dependencies."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and ast.unparse(called).startswith("dg.")
