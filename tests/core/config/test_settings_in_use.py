"""Every setting acts: product code reads it, and a preset, an experiment or a test sets it.

Both are found in the syntax trees. An attribute counts for a class of settings where the object is
of that class: by its annotation, by the annotation of the field that holds it, or by the assignment
that made it. So `model.recency_prior`, of a module of weights, does not count for `training`.
"""

import ast
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import yaml

from onerec.config import PipelineConfig, Runtime, SessionConfig
from onerec.datasets.simulator.config import SimulatorConfig

CHECKOUT = Path(__file__).resolve().parents[3]
PRODUCT = ("onerec", "assets", "resources", "onerec_dagster")
SET_IN = ("tests", "experiments", "examples", "benchmarks", "onerec/datasets", "onerec/config")
SECTIONS = {f.name: type(f.default) for f in dataclasses.fields(PipelineConfig)}
CONFIGS = [*SECTIONS.values(), SimulatorConfig, Runtime]
SETTINGS = {f"{config.__name__}.{f.name}" for config in CONFIGS for f in dataclasses.fields(config)}


def trees(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for file in sorted((CHECKOUT / folder).rglob("*.py")):
            yield ast.parse(file.read_text(encoding="utf-8"))


def class_named(annotation: ast.expr | None) -> str | None:
    """`"TrainingConfig | None"` is a TrainingConfig."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        annotation = annotation.left
    if isinstance(annotation, ast.Attribute):
        return annotation.attr
    return annotation.id if isinstance(annotation, ast.Name) else None


@dataclass
class Types:
    """What classes there are, and of which class their fields and results are."""

    fields: dict[str, dict[str, str | None]] = field(default_factory=dict)
    results: dict[str, str | None] = field(default_factory=dict)
    constants: dict[str, str | None] = field(default_factory=dict)
    launchpads: dict[str, ast.expr] = field(default_factory=dict)
    bases: dict[str, list[str]] = field(default_factory=dict)

    def learn(self, tree: ast.Module) -> None:
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                self.constants[node.target.id] = class_named(node.annotation)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                self.results.setdefault(node.name, class_named(node.returns))
            elif isinstance(node, ast.ClassDef):
                self.bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]
                for base in node.bases:  # class Launchpad(launchpad(PIPELINE.serving, ...))
                    if isinstance(base, ast.Call) and class_named(base.func) == "launchpad":
                        self.launchpads[node.name] = base.args[0]
                known = self.fields.setdefault(node.name, {})
                for part in ast.walk(node):
                    if isinstance(part, ast.AnnAssign):
                        target = part.target
                        name = target.id if isinstance(target, ast.Name) else ast.unparse(target)
                        known[name.removeprefix("self.")] = class_named(part.annotation)
                    elif isinstance(part, ast.FunctionDef):
                        known.setdefault(part.name, class_named(part.returns))
                        known |= self._kept_arguments(part)

    @staticmethod
    def _kept_arguments(method: ast.FunctionDef) -> dict[str, str | None]:
        """`self.config = config` has the class of the argument."""
        given = {a.arg: class_named(a.annotation) for a in arguments(method)}
        return {
            target.attr: given[value.id]
            for node in ast.walk(method)
            if isinstance(node, ast.Assign)
            for target, value in assigned(node)
            if isinstance(target, ast.Attribute)
            and isinstance(value, ast.Name)
            and value.id in given
        }

    def field(self, owner: str, name: str) -> str | None:
        """The class of a field, that of a base where the class itself does not declare it."""
        found = self.fields.get(owner, {}).get(name)
        inherited = (self.field(base, name) for base in self.bases.get(owner, ()))
        return found or next(filter(None, inherited), None)

    def of(self, node: ast.expr, names: dict[str, str | None]) -> str | None:
        """The class of an expression; None where it is not known."""
        if isinstance(node, ast.Name):
            found = names.get(node.id, self.constants.get(node.id))
            return self.of(self.launchpads[found], {}) if found in self.launchpads else found
        if isinstance(node, ast.Attribute):
            return self.field(self.of(node.value, names) or "", node.attr)
        if isinstance(node, ast.BoolOp):
            return self.of(node.values[-1], names)
        if isinstance(node, ast.Call):
            called = class_named(node.func)
            if called in self.launchpads:
                return self.of(self.launchpads[called], {})
            if called in self.fields:
                return called
            place = {"replace": 0, "to_core": 1}.get(called or "")
            if place is not None and len(node.args) > place:
                return self.of(node.args[place], names)
            return self.results.get(called or "")
        return None


def arguments(function: ast.FunctionDef | ast.Lambda) -> list[ast.arg]:
    given = function.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]


def names_of(node: ast.AST, types: Types, outer: dict[str, str | None]) -> dict[str, str | None]:
    """Classes of the names of a function or module, those of the scopes around it included."""
    names = dict(outer)
    if isinstance(node, ast.FunctionDef):
        names |= {a.arg: class_named(a.annotation) for a in arguments(node) if a.annotation}
    for _ in range(2):  # a name may stand above the one it is made from
        for part in ast.walk(node):
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                names[part.target.id] = class_named(part.annotation)
            elif isinstance(part, ast.Assign):
                for target, value in assigned(part):
                    found = types.of(value, names)
                    if isinstance(target, ast.Name) and found:
                        names[target.id] = found
    return names


def assigned(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield target, node.value


def expressions(
    node: ast.AST, types: Types, names: dict[str, str | None]
) -> Iterator[tuple[ast.AST, dict[str, str | None]]]:
    """Every node with the classes of the names around it."""
    for child in ast.iter_child_nodes(node):
        inner = names
        if isinstance(child, ast.ClassDef):
            inner = names | {"self": child.name}
        elif isinstance(child, ast.FunctionDef):
            inner = names_of(child, types, names)
        yield child, inner
        yield from expressions(child, types, inner)


@cache
def known_types() -> Types:
    types = Types()
    for tree in trees(*PRODUCT, "experiments"):
        types.learn(tree)
    for tree in trees("tests"):  # constants such as `TRAINING = TrainingConfig(...)`
        for name, config in names_of(ast.Module(tree.body, []), types, {}).items():
            known = types.constants.setdefault(name, config)
            types.constants[name] = config if known == config else None
    return types


@cache
def settings_read() -> set[str]:
    """`TrainingConfig.seed` of every attribute read in product code, and of every dbt variable."""
    types, found = known_types(), set()
    for tree in trees(*PRODUCT):
        for node, names in expressions(tree, types, names_of(tree, types, {})):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(f"{types.of(node.value, names)}.{node.attr}")
            elif isinstance(node, ast.Call) and class_named(node.func) == "getattr":
                found |= read_by_prefix(types.of(node.args[0], names), node.args[1])
    sql = "\n".join(file.read_text() for file in (CHECKOUT / "dbt_sessions").rglob("*.sql"))
    variables = {f.name for f in dataclasses.fields(SessionConfig) if f'var("{f.name}")' in sql}
    return found | {f"SessionConfig.{name}" for name in variables}


def read_by_prefix(config: str | None, name: ast.expr) -> set[str]:
    """Of `getattr(config, f"weight_{signal}")`."""
    first = name.values[0] if isinstance(name, ast.JoinedStr) else None
    if not isinstance(first, ast.Constant):
        return set()
    return {setting for setting in SETTINGS if setting.startswith(f"{config}.{first.value}")}


@cache
def settings_set() -> set[str]:
    """`TrainingConfig.seed` where a call, or the section of a mapping or of a file, gives it.

    In a file that spreads a mapping into a class, as in `TrainingConfig(**given)`, its texts and
    keywords may be the mapping's keys.
    """
    types, found = known_types(), set()
    for tree in trees(*SET_IN):
        spread, texts = set(), set()
        for node, names in expressions(tree, types, names_of(tree, types, {})):
            if isinstance(node, ast.Call):
                given = {keyword.arg for keyword in node.keywords if keyword.arg}
                config = types.of(node, names)
                spread |= {config for keyword in node.keywords if keyword.arg is None}
                found |= {f"{owner}.{n}" for n in given for owner in (config, only_owner(n))}
                texts |= given
            elif isinstance(node, ast.Dict):
                found |= set(set_by_mapping(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
        found |= {f"{config}.{name}" for config in spread for name in texts}
    for folder in SET_IN:
        for file in (CHECKOUT / folder).rglob("*.yaml"):
            read = yaml.safe_load(file.read_text()) or {}
            for section, values in (read.get("stages") or {}).items():
                found |= {f"{SECTIONS[section].__name__}.{name}" for name in values}
    return found


def only_owner(name: str) -> str | None:
    """The one class that has a field, or a method, of a name."""
    types = known_types()
    owners = [c for c, f in types.fields.items() if name in f and c not in types.launchpads]
    return owners[0] if len(owners) == 1 else None


def set_by_mapping(node: ast.Dict) -> Iterator[str]:
    """Of `{"training": {"seed": 1}}`, and of `{"new_item_days": 3}`."""
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield f"{only_owner(key.value)}.{key.value}"
        section = key.value if isinstance(key, ast.Constant) else None
        if section in SECTIONS and isinstance(value, ast.Dict):
            for name in value.keys:
                if isinstance(name, ast.Constant):
                    yield f"{SECTIONS[section].__name__}.{name.value}"


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_product_code_reads_every_setting(setting: str) -> None:
    assert setting in settings_read(), "delete it: nothing acts on it"


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_every_setting_is_set_somewhere(setting: str) -> None:
    assert setting in settings_set(), "set it in a test that shows what it does, or delete it"
