"""An asset's code version changes with all code that it can run, and with nothing else."""

import json
from pathlib import Path

import grimp
import pytest

from assets import code_version as versions
from assets.code_version import BY_DEFINITION, NOT_COUNTED, Unit, code_version, reachable_code
from assets.sessions import PROJECT, SessionSqlTranslator
from experiments.definitions import defs as experiments
from onerec_dagster.definitions import defs

FILES = {
    "assets/__init__.py": "",
    "assets/models.py": '''
import os

from assets.helpers import prepared, unused
from resources.store import Store

if TYPE_CHECKING:
    from onerec.typing_only import Hint

LIMIT = 3

@dg.asset(group_name="models")
def model(store: Store):
    """Trains."""
    from onerec.training import train

    return train(prepared(LIMIT), store.get().per_head())

@dg.asset
def other():
    from onerec.lonely import alone

    return alone()
''',
    "assets/helpers.py": "def prepared(x):\n    return x\n\ndef unused(x):\n    return -x\n",
    "resources/__init__.py": "",
    "resources/store.py": "class Store:\n    def get(self):\n        from onerec import files\n",
    "onerec/__init__.py": "",
    "onerec/config/__init__.py": "from onerec.config.width import Width, unused\n",
    "onerec/config/width.py": '''
from onerec.config.fields import ValidatedConfig, option

UNITS = 2

class Width(ValidatedConfig):
    """Settings."""

    width: int = option(3, "Units", ge=1)

    def __post_init__(self):
        assert self.width < 100

    def per_head(self):
        return self.width // UNITS

def unused(x):
    return x
''',
    "onerec/config/fields.py": "class ValidatedConfig: ...\n\ndef option(x): ...\n",
    "onerec/files.py": "",
    "onerec/lonely.py": "def alone():\n    pass\n",
    "onerec/typing_only.py": "class Hint: ...\n",
    "onerec/training/__init__.py": "from onerec.training.loop import train\n",
    "onerec/training/loop.py": """
from importlib import import_module

def train(x):
    from onerec.maths.losses import loss

    return import_module("onerec.readers").read(loss(x))
""",
    "onerec/maths/__init__.py": "# sums\n",
    "onerec/maths/losses.py": "def loss(x):\n    return x * x\n",
    "onerec/readers.py": "def read(x):\n    return x\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def version_after(root: Path, file: str, old: str, new: str) -> tuple[str, str]:
    """The version of `model` before and after a change of a file."""
    before = code_version("assets.models", "model", root=root)
    path = root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else text + new)
    return before, code_version("assets.models", "model", root=root)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("assets/models.py", "prepared(LIMIT)", "LIMIT"),
        ("assets/models.py", "LIMIT = 3", "LIMIT = 4"),
        ("assets/helpers.py", "    return x\n", "    return x + 1\n"),
        ("resources/store.py", "", "    limit = 3\n"),
        ("onerec/files.py", "", "x = 1\n"),
        ("onerec/__init__.py", "", "x = 1\n"),
        ("onerec/training/__init__.py", "", "x = 1\n"),
        ("onerec/training/loop.py", "read(loss(x))", "read(x)"),
        ("onerec/maths/__init__.py", "", "x = 1\n"),
        ("onerec/maths/losses.py", "x * x", "abs(x)"),
        ("onerec/readers.py", "return x", "return 2 * x"),
        ("onerec/config/width.py", "self.width // UNITS", "self.width / UNITS"),
        ("onerec/config/width.py", "UNITS = 2", "UNITS = 4"),
    ],
)
def test_code_that_runs_counts(root: Path, file: str, old: str, new: str) -> None:
    before, after = version_after(root, file, old, new)
    assert before != after


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("assets/models.py", '"""Trains."""', '"""Trains the model."""'),
        ("assets/models.py", 'group_name="models"', 'group_name="generators"'),
        ("assets/models.py", "return alone()", "return 3"),
        ("assets/helpers.py", "return -x", "return 0"),
        ("onerec/config/width.py", 'option(3, "Units", ge=1)', 'option(4, "Width", ge=2)'),
        ("onerec/config/width.py", "< 100", "< 200"),
        ("onerec/config/width.py", "    return x\n", "    return -x\n"),
        ("onerec/config/fields.py", "option(x)", "option(x, y)"),
        ("onerec/lonely.py", "pass", "return 3"),
        ("onerec/typing_only.py", "", "x = 1\n"),
        ("onerec/maths/losses.py", "    return", "    # squared\n    return"),
        ("onerec/maths/losses.py", "x * x", "(x  *  x)"),
    ],
)
def test_what_changes_no_result_does_not_count(root: Path, file: str, old: str, new: str) -> None:
    before, after = version_after(root, file, old, new)
    assert before == after


def test_a_name_that_is_not_defined(root: Path) -> None:
    with pytest.raises(ValueError, match=r"name='modell': assets\.models defines"):
        code_version("assets.models", "modell", root=root)


@pytest.mark.parametrize("definitions", [defs, experiments])
def test_every_asset_has_a_code_version(definitions) -> None:
    for asset in definitions.resolve_all_asset_specs():
        is_made_here = asset.key in definitions.resolve_asset_graph().materializable_asset_keys
        assert asset.code_version or not is_made_here or "dbt" in asset.kinds, asset.key


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("assets.training", "pretrained_checkpoint"),
        ("assets.reward", "reward_model"),
        ("assets.alignment", "checkpoint_of_round"),
        ("assets.baselines", "baselines"),
        ("assets.evaluation", "offline_metrics"),
        ("assets.serving", "recommendations"),
        ("experiments.variants.evaluation", "evaluate_variant"),
    ],
)
def test_all_that_the_core_modules_import_is_counted(module: str, name: str) -> None:
    """As grimp, which import-linter uses, finds the imports."""
    graph = grimp.build_graph("onerec", exclude_type_checking_imports=True)
    counted = {unit.module for unit in reachable_code(module, name)}
    core = {name for name in counted if name.startswith("onerec")}
    assert len(core) > 10
    imported = {found for module in core for found in graph.find_upstream_modules(module)}
    missing = {
        name
        for name in imported - core
        if not any(name == n or name.startswith(f"{n}.") for n in (*NOT_COUNTED, *BY_DEFINITION))
    }
    assert missing == set()


@pytest.mark.parametrize(
    ("module", "name", "unit"),
    [
        ("assets.tokenizer", "codebook", ("onerec.config.tokenizer", "TokenizerConfig")),
        ("assets.raw", "raw_events", ("onerec.config.feedback", "kind_of")),
        ("assets.baselines", "baselines", ("onerec.config.evaluation", "EvaluationConfig")),
        ("assets.training", "pretrained_checkpoint", ("onerec.config.runtime", "Runtime")),
    ],
)
def test_what_is_computed_from_settings_counts(
    module: str, name: str, unit: tuple[str, str]
) -> None:
    """`TokenizerConfig.codes_per_level`, `kind_of`, `EvaluationConfig.systems`, and the like."""
    assert Unit(*unit) in reachable_code(module, name)


def test_files_of_a_page_count_for_it(root: Path) -> None:
    (root / "page.html").write_text("<p>one</p>")
    before = code_version("assets.models", "model", root=root, also=["page.html"])
    (root / "page.html").write_text("<p>two</p>")
    assert before != code_version("assets.models", "model", root=root, also=["page.html"])


def test_macros_count_for_the_session_sql() -> None:
    translator = SessionSqlTranslator()
    manifest = json.loads(PROJECT.manifest_path.read_text())
    one = translator.get_asset_spec(manifest, "model.onerec_sessions.sessions", PROJECT)
    translator.MACROS = "other macros"
    other = translator.get_asset_spec(manifest, "model.onerec_sessions.sessions", PROJECT)
    assert one.code_version != other.code_version


def test_versions_of_unchanged_sources_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew = versions._kept_versions.__wrapped__  # as in a process that just started
    monkeypatch.setattr(versions, "_kept_file", lambda: tmp_path / "state" / "kept.json")
    monkeypatch.setattr(versions, "_kept_versions", anew)
    first = code_version("assets.raw", "raw_events")
    monkeypatch.setattr(versions, "reachable_code", None)
    assert code_version("assets.raw", "raw_events") == first
    with pytest.raises(TypeError):  # what was not kept is computed
        code_version("assets.raw", "raw_items")
    monkeypatch.setattr(versions, "_sources", lambda: "of a changed file")
    with pytest.raises(TypeError):
        code_version("assets.raw", "raw_events")


@pytest.mark.parametrize("text", ["", "[]", '{"sources": 1}', "null"])
def test_a_damaged_file_of_versions_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    file = tmp_path / "kept.json"
    file.write_text(text)
    monkeypatch.setattr(versions, "_kept_file", lambda: file)
    monkeypatch.setattr(versions, "_kept_versions", versions._kept_versions.__wrapped__)
    version = code_version("assets.raw", "raw_events")
    assert version in json.loads(file.read_text())["versions"].values()
