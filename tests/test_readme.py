"""The README's tree, stage table, commands and links are those of the checkout."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from onerec.serving.item_id_recommender import Recommendation
from onerec.serving.recommender import write_bundle
from tests.core.evaluation import night as small

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text()


def tree() -> set[str]:
    """Paths of the annotated tree."""
    block = README.split("```text")[1].split("```")[0]
    paths, parents = set(), []
    for line in block.strip("\n").splitlines():
        name = line.split("#")[0].rstrip()
        depth = (len(name) - len(name.lstrip())) // 2
        parents[depth:] = [name.strip().rstrip("/")]
        paths.add("/".join(parents))
    return paths


def stage_table() -> list[list[str]]:
    """Cells of the stage table's rows."""
    table = README.split("| stage | core |")[1].split("\n\n")[0]
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_it_fits_one_read():
    assert len(README.splitlines()) <= 140


def test_the_lines_of_python_recommend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run as they stand, over a small bundle where they look for one."""
    lines = README.split("```python\n")[1].split("```")[0].strip().splitlines()
    bundle = tmp_path / re.findall(r'"(\.onerec/\S+/bundle)"', "\n".join(lines))[0]
    watched = re.findall(r'"(v\d{6})"', lines[-1])
    names = [*watched, *(f"v{number:06d}" for number in range(small.NUM_ITEMS - len(watched)))]
    ids = dataclasses.replace(small.catalogue(), item_ids=np.array(names, dtype=object))
    small.write_catalogue(tmp_path / "semantic_ids", ids)
    small.write_generator(tmp_path / "checkpoint", seed=0)
    write_bundle(bundle, checkpoint=tmp_path / "checkpoint", semantic_ids=tmp_path / "semantic_ids")
    monkeypatch.chdir(tmp_path)
    found: dict[str, list[Recommendation]] = {}
    exec("\n".join([*lines[:-1], f"found['list'] = {lines[-1]}"]), {"found": found})
    assert len({made.item_id for made in found["list"]} - set(watched)) == 5


def test_every_path_of_the_tree_exists():
    assert not [path for path in sorted(tree()) if not (CHECKOUT / path).exists()]


def test_the_tree_names_every_package():
    packages = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")}
    subpackages = {
        f"{package}/{path.parent.name}"
        for package in ("onerec", "experiments")
        for path in CHECKOUT.glob(f"{package}/*/__init__.py")
    }
    others = {"dbt_sessions", "docs", "examples"}
    assert not sorted((packages | subpackages | others) - tree())


def test_stages_name_places_that_exist_and_every_asset_module_has_a_stage():
    rows = stage_table()
    assert rows
    assert all(len(row) == 4 for row in rows)
    named = {path for row in rows for cell in row[1:3] for path in re.findall(r"`([^`]+)`", cell)}
    assert not [path for path in sorted(named) if not (CHECKOUT / path).exists()]
    with_assets = {
        f"assets/{p.name}" for p in CHECKOUT.glob("assets/*.py") if "group_name=" in p.read_text()
    }
    assert not sorted(with_assets - named)


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([\w-]+)", README)) <= targets


def test_every_linked_file_exists():
    links = [u for u in re.findall(r"\]\(([^)#]+)", README) if "://" not in u]
    assert not [u for u in links if not (CHECKOUT / u).exists()]
