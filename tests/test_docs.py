"""Documents, pictures and code use the same words and name what exists."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"
TEXTS = {".py", ".md", ".sql", ".yml", ".yaml", ".toml"}
HISTORY = {"CHANGELOG.md", "docs/log.md"}
"""What was said on its day stays as it was said."""


def tracked() -> list[Path]:
    """Text files of the repository."""
    listed = subprocess.run(
        ["git", "-C", str(CHECKOUT), "ls-files"], check=True, capture_output=True, text=True
    )
    paths = [CHECKOUT / name for name in listed.stdout.splitlines() if Path(name).suffix in TEXTS]
    return [path for path in paths if path.exists()]


def words_not_used() -> list[str]:
    """First column of the glossary's last table."""
    table = (DOCS / "glossary.md").read_text().split("| not used | instead |\n")[1]
    return [line.split("|")[1].strip() for line in table.splitlines()[1:]]


def test_words_the_glossary_rules_out_are_not_used():
    words = words_not_used()
    assert len(words) > 5
    ruled_out = re.compile(rf"\b({'|'.join(words)})\b", re.IGNORECASE)
    found = []
    for path in tracked():
        name = path.relative_to(CHECKOUT).as_posix()
        if name in HISTORY or path == DOCS / "glossary.md":
            continue
        text = re.sub(r"\n\s*(#|--|>)?\s*|_", " ", path.read_text())  # over two lines, in names
        found += [f"{name}: {match.group()}" for match in ruled_out.finditer(text)]
    assert not found


def test_every_asset_in_the_lineage_picture_exists():
    svg = (DOCS / "lineage.svg").read_text()
    drawn = re.findall(r'class="asset"[^>]*>(\w+)<', svg)
    functions = "\n".join(path.read_text() for path in CHECKOUT.glob("assets/*.py"))
    defined = set(re.findall(r'(?:def |")(\w+)[("]', functions))
    defined |= {path.stem for path in CHECKOUT.glob("dbt_sessions/models/*/*.sql")}
    assert len(drawn) > 12
    assert not sorted(set(drawn) - defined)


def test_every_environment_variable_is_documented():
    code = "\n".join(
        path.read_text()
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(CHECKOUT).parts[0] != "tests"
    )
    read = set(re.findall(r"[\"'](ONEREC_[A-Z_]*[A-Z])[\"']", code))  # no prefixes
    assert "ONEREC_ARTIFACTS" in read
    documented = set(re.findall(r"`(ONEREC_[A-Z_]+)`", (DOCS / "operations.md").read_text()))
    assert not sorted(read - documented)


def test_every_package_of_the_core_has_a_page_of_the_api():
    pages = "\n".join(path.read_text() for path in DOCS.glob("api/*.md"))
    packages = {f"onerec.{path.parent.name}" for path in CHECKOUT.glob("onerec/*/__init__.py")}
    assert not sorted(packages - set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE)))


def test_every_document_is_in_the_navigation():
    navigation = yaml.safe_dump(yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text())["nav"])
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert not [page for page in sorted(pages) if page not in navigation]


def test_every_path_named_in_a_document_exists():
    folders = (
        "onerec|assets|resources|onerec_dagster|experiments|dbt_sessions|benchmarks|tests|docs"
    )
    documents = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *DOCS.glob("*.md")]
    undated = {path for path in documents if path.stem not in ("log", "results", "benchmarks")}
    named = {
        path
        for document in undated
        for path in re.findall(rf"`((?:{folders})/[\w/.-]*)`", document.read_text())
    }
    assert len(named) > 20
    assert not [path for path in sorted(named) if not (CHECKOUT / path).exists()]


def test_every_public_package_of_the_core_is_on_an_api_page():
    """Submodules are shown with their package (`show_submodules`)."""
    named = re.findall(r"^::: (\S+)", "\n".join(f.read_text() for f in DOCS.glob("api/*.md")), re.M)
    entries = [p for p in (CHECKOUT / "onerec").iterdir() if not p.name.startswith(("_", "."))]
    public = {
        f"onerec.{p.stem}" for p in entries if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert public == {name for name in named if name.count(".") == 1}


def test_commands_of_the_documents_name_what_exists(capsys: pytest.CaptureFixture[str]):
    from experiments.table_specs import chosen_tables
    from onerec_dagster.__main__ import parser

    pages = [path for path in DOCS.rglob("*.md") if path.name != "log.md"]
    places = [*pages, CHECKOUT / "README.md", CHECKOUT / "Makefile"]
    text = "\n".join(path.read_text() for path in places)
    for quoted, one in re.findall(r'TABLES=(?:"([^"]+)"|([a-z_]+))', text):
        assert chosen_tables(tuple((quoted or one).split()))
    for command in set(re.findall(r"python -m onerec_dagster ([a-z]+)", text)):
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([command, "--help"])
        assert ended.value.code == 0, command
    for line in text.splitlines():  # two code locations: Dagster asks for one of them
        assert "-w workspace.yaml" not in line or " -l onerec_dagster.definitions" in line
