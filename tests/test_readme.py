"""The README's tree and commands are those of the checkout."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text()


def test_every_path_of_the_annotated_tree_exists():
    block = README.split("```text")[1].split("```")[0]
    paths, parents = [], []
    for line in block.strip("\n").splitlines():
        name = line.split("#")[0].rstrip()
        depth = (len(name) - len(name.lstrip())) // 2
        parents[depth:] = [name.strip().rstrip("/")]
        paths.append("/".join(parents))
    assert len(paths) > 20
    missing = [p for p in paths if not (CHECKOUT / p).exists()]
    assert not missing


def test_every_make_target_named_in_the_readme_exists():
    targets = set(re.findall(r"^(\w+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make (\w+)", README)) <= targets


def test_every_linked_file_exists():
    links = [u for u in re.findall(r"\]\(([^)#]+)", README) if "://" not in u]
    missing = [u for u in links if not (CHECKOUT / u).exists()]
    assert not missing
