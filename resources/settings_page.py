"""`docs/settings.md`: every setting with its legal values, its default by preset, and its meaning.

`python -m resources.settings_page` writes the page, with `--check` it fails when the page differs
from the dataclasses.
"""

import dataclasses
import sys
import typing
from collections.abc import Mapping
from typing import NamedTuple

from onerec.config import PRESETS, PipelineConfig, ValidatedConfig
from onerec.datasets import DATASETS
from onerec.datasets.simulator.config import SimulatorConfig
from onerec.markdown import template
from resources.settings import CHECKOUT

PAGE = CHECKOUT / "docs" / "settings.md"
DEFAULT = "tiny"
TEMPLATE = template(
    """\
# Settings

Written by `make docs` from the dataclasses in `onerec/config`; edit those, not this page.

A setting is set under `stages:` in the YAML file that `CONFIG=` names, the simulator's under
`simulator:`, or for one run in Dagster's launchpad:

```yaml
stages:
  tokenizer: { codebook_size: 64 }
  alignment: { method: dpo, ntp_weight: 0 }
```

The preset (`PRESET=tiny`, the default, `small`, `base` or `large`) comes first, then what the
data set changes ([below](#what-a-data-set-changes)), then the YAML file, then the launchpad. A
wrong name or value stops the run before it starts, with a message that names the field, the value
and the remedy. Where things live and what they run on are [environment
variables](operations.md#environment-variables).

{% for section in sections %}
## {{ section.title }}

{{ section.text }}

{{ markdown_table(["setting", "values", "default", "meaning"], section.rows) }}

{% endfor %}
## What a data set changes

{{ markdown_table(["data set", "setting", "value"], changes) }}
"""
)


class StagePage(NamedTuple):
    """One dataclass: its docstring's first paragraph and a row per field."""

    title: str
    text: str
    rows: list[tuple[str, str, str, str]]


def settings_page() -> str:
    """The page as Markdown: a table per stage, then the simulator's and each data set's changes."""
    stages = [stage.name for stage in dataclasses.fields(PipelineConfig)]
    by_stage = {n: {p: getattr(preset, n) for p, preset in PRESETS.items()} for n in stages}
    by_stage["simulator"] = {DEFAULT: SimulatorConfig()}
    changes = [
        (name, f"`{stage}.{field}`", f"`{value}`")
        for name, dataset in DATASETS.items()
        for stage, values in dataset.stages.items()
        for field, value in values.items()
    ]
    sections = [_section(title, presets) for title, presets in by_stage.items()]
    return TEMPLATE.render(sections=sections, changes=changes)


def _section(title: str, presets: Mapping[str, ValidatedConfig]) -> StagePage:
    config = type(presets[DEFAULT])
    types = typing.get_type_hints(config)
    rows = []
    for field in dataclasses.fields(config):
        default = getattr(presets[DEFAULT], field.name)
        by_preset = {name: getattr(preset, field.name) for name, preset in presets.items()}
        others = [f"{name} `{value}`" for name, value in by_preset.items() if value != default]
        values = _values(types[field.name], field.metadata["limits"])
        meaning = field.metadata["doc"]
        rows.append((f"`{field.name}`", values, ", ".join([f"`{default}`", *others]), meaning))
    return StagePage(title, (config.__doc__ or "").split("\n\n")[0].replace("\n", " "), rows)


def _values(kind: typing.Any, limits: Mapping[str, typing.Any]) -> str:
    """The choices of a `Literal`, or a type with its range."""
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(kind))
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {limits[name]}" for name, sign in signs.items() if name in limits]
    return ", ".join([f"`{kind.__name__}`", *bounds])


def main() -> None:
    """Write the page, or compare it with `--check`."""
    page = settings_page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        sys.exit(f"{PAGE.relative_to(CHECKOUT)} is out of date: run `make docs`")


if __name__ == "__main__":
    main()
