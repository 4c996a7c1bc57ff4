"""`docs/settings.md`: every setting with its type, default, defaults by preset, and meaning.

`python -m resources.settings_page` writes the page, with `--check` it fails when the page differs
from the dataclasses.
"""

import dataclasses
import sys
import typing
from collections.abc import Iterator

from onerec.config import PRESETS, PipelineConfig
from onerec.datasets import DATASETS
from resources.settings import CHECKOUT

PAGE = CHECKOUT / "docs" / "settings.md"
DEFAULT = "tiny"
HEAD = """\
# Settings

Written by `make docs` from the dataclasses in `onerec/config`; edit those, not this page.

A setting is set under `stages:` in the YAML file that `CONFIG=` names, or for one run in Dagster's
launchpad:

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
"""


def settings_page() -> str:
    """The page as Markdown: a table per stage, then what each data set changes."""
    lines = [HEAD]
    for stage in dataclasses.fields(PipelineConfig):
        lines += _stage(stage.name)
    lines += ["## What a data set changes", "", "| data set | setting | value |", "|---|---|---|"]
    for name, dataset in DATASETS.items():
        for stage, changes in dataset.stages.items():
            lines += [f"| {name} | `{stage}.{k}` | `{v}` |" for k, v in changes.items()]
    return "\n".join(lines) + "\n"


def _stage(stage: str) -> Iterator[str]:
    config = type(getattr(PRESETS[DEFAULT], stage))
    types = typing.get_type_hints(config)
    yield f"## {stage}"
    yield ""
    yield (config.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    yield ""
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for field in dataclasses.fields(config):
        values = {name: getattr(getattr(p, stage), field.name) for name, p in PRESETS.items()}
        default = values.pop(DEFAULT)
        others = [f"{name} `{value}`" for name, value in values.items() if value != default]
        cell = ", ".join([f"`{default}`", *others])
        doc = field.metadata["doc"].replace("|", "\\|")
        yield f"| `{field.name}` | {_type(types[field.name])} | {cell} | {doc} |"
    yield ""


def _type(annotation: typing.Any) -> str:
    """`int`, or the choices of a `Literal`."""
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    return f"`{getattr(annotation, '__name__', annotation)}`"


def main() -> None:
    """Write the page, or compare it with `--check`."""
    page = settings_page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        sys.exit(f"{PAGE.relative_to(CHECKOUT)} is out of date: run `make docs`")


if __name__ == "__main__":
    main()
