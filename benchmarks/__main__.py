"""`make bench`: run the sections, write `docs/benchmarks.md` and `$ONEREC_HOME/bench.json`.

    python -m benchmarks                        # every section
    python -m benchmarks tokenizer training     # only these; others keep their last figures
    python -m benchmarks --quick                # small sizes, as a smoke test

Each section runs in a separate process, so that memory and threads of sections do not interfere,
and writes its result to `$ONEREC_HOME/bench/<section>.json`. `--quick` writes no document.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.section import Section, section_from_json
from onerec.markdown import markdown_table, template

SECTIONS = (
    "data", "pairs", "tokenizer", "catalogue", "training", "architectures", "generation", "presets",
    "accelerator", "night",
)  # fmt: skip
"""Modules of this package with a function `run(quick) -> Section`, in the order of the page."""
PAGE = Path("docs/benchmarks.md")
PEERS = (
    "torch",
    "duckdb",
    "pandas",
    "polars",
    "faiss-cpu",
    "k-means-constrained",
    "transformers",
    "cornac",
    "numpy",
)
PAGE_TEMPLATE = template("""\
# Benchmarks

Written by `make bench`; every ratio compares things run in turn in one process.
Absolute times belong to the machine named and mean little elsewhere.
{% for section in sections %}

{{ section }}
{% endfor %}
""")
MEASURED_TEMPLATE = template("""\
{{ section }}
{{ result.date }}, {{ result.machine }}, peak memory {{ result.peak_rss_gib }} GiB;
{{ result.versions.items() | map("join", " ") | join(", ") }}.
""")
SECTION_TEMPLATE = template("""\
## {{ section.title }}

{{ section.text }}
{% for caption, table in tables %}

**{{ caption }}**

{{ table }}
{% endfor %}
{% if figures %}

{{ figures | join(", ") }}
{% endif %}
""")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, no document")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"section {unknown[0]!r}: use one of {', '.join(SECTIONS)}")
    results = Path(os.environ.get("ONEREC_HOME") or ".onerec") / (
        "bench-quick" if options.quick else "bench"
    )
    results.mkdir(parents=True, exist_ok=True)
    chosen = options.sections or SECTIONS
    if options.inside:
        _measure(chosen[0], results, quick=options.quick)
        return
    for name in chosen:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "benchmarks", name, "--inside"]
        subprocess.run(command + ["--quick"] * options.quick, check=True)
    if options.quick:
        return
    write_page(results)


def write_page(results: Path, page: Path = PAGE) -> None:
    """Write the page and `bench.json`; sections without a result keep their text on the page.

    Args:
        results: Directory of `<section>.json`.
        page: The document.
    """
    read = [results / f"{name}.json" for name in SECTIONS]
    measured = [json.loads(path.read_text()) for path in read if path.exists()]
    figures = {k: v for result in measured for k, v in result["section"]["figures"].items()}
    (results.parent / "bench.json").write_text(json.dumps(figures, indent=2) + "\n")
    earlier = page.read_text().split("\n## ")[1:] if page.exists() else []
    sections = {text.split("\n")[0]: f"## {text.rstrip()}" for text in earlier}
    for result in measured:
        text = section_page(section_from_json(result["section"]))
        shown = MEASURED_TEMPLATE.render(result=result, section=text)
        sections[result["section"]["title"]] = shown.rstrip()
    page.write_text(PAGE_TEMPLATE.render(sections=sections.values()))
    print(f"{page} and {results.parent / 'bench.json'}")


def _measure(name: str, results: Path, *, quick: bool) -> None:
    section: Section = import_module(f"benchmarks.{name}").run(quick)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(section_page(section))
    found = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": package_versions(),
        "peak_rss_gib": round(peak, 2),
        "section": section.to_json(),
    }
    (results / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")


def machine() -> str:
    """Processor, usable cores and memory, in words."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def package_versions() -> dict[str, str]:
    """Installed versions of the measured packages."""
    found = {"python": platform.python_version()}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def section_page(section: Section) -> str:
    """A section in Markdown, with four significant digits."""
    tables = [
        (table.caption, markdown_table(table.columns, [map(_rounded, row) for row in table.rows]))
        for table in section.tables
    ]
    figures = [f"`{name}` {_rounded(value)}" for name, value in section.figures.items()]
    return SECTION_TEMPLATE.render(section=section, tables=tables, figures=figures)


def _rounded(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    main()
