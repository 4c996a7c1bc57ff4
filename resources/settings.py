"""Where things live and what they run on: environment variables over one YAML file over defaults.

`$ONEREC_HOME/settings.yaml` remembers what `make demo` was started with, so that `make dev` opens
the same state.
"""

import os
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from functools import cached_property
from pathlib import Path
from typing import Any

import pydantic
import yaml

from onerec.artifacts import ArtifactStore
from onerec.config import PRESETS, PipelineConfig, Runtime, SettingError, read_yaml, require
from onerec.config.feedback import KIND_STAGES, Feedback
from onerec.config.fields import pydantic_fields
from onerec.datasets import DATASETS, EventSource
from onerec.urls import require_no_credentials
from resources.file_source import feedback_of, open_source, time_zone_of

CHECKOUT = Path(__file__).resolve().parent.parent
REMEMBERED = ("dataset", "data_dir", "config", "preset")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One environment.

    Attributes:
        home: Everything the project generates.
        dataset: Name of the event source.
        data_dir: Directory of its files, where it reads files.
        config: YAML file with the column mapping of one's own data, and stage settings.
        preset: Sizes.
        runtime: Hardware.
    """

    home: Path
    dataset: str
    data_dir: str | None
    config: Path | None
    preset: str
    runtime: Runtime

    @property
    def root(self) -> Path:
        """State of one data set: two data sets never share a warehouse or a lineage."""
        return self.home / self.dataset

    @property
    def sql(self) -> str:
        """`ONEREC_SQL`, the engine of the session SQL: duckdb or spark.

        Raises:
            SettingError: It is neither.
        """
        engine = os.environ.get("ONEREC_SQL") or "duckdb"
        require(engine in ("duckdb", "spark"), "ONEREC_SQL", engine, "use duckdb or spark")
        return engine

    @property
    def warehouse_path(self) -> Path:
        """The DuckDB file; under Spark another one, with the landed rows and views of the lake."""
        return self.root / ("warehouse.duckdb" if self.sql == "duckdb" else "spark.duckdb")

    @property
    def lake(self) -> Path:
        """`ONEREC_LAKE`, the directory of Spark's tables."""
        given = os.environ.get("ONEREC_LAKE")
        return Path(given).expanduser().resolve() if given else self.root / "lake"

    @property
    def artifacts_url(self) -> str:
        return os.environ.get("ONEREC_ARTIFACTS") or str(self.root / "artifacts")

    @property
    def cache_dir(self) -> Path:
        """Copies of a remote store's artifacts, for this user alone."""
        return self.home / "cache" / "artifacts"

    def artifact_store(self) -> ArtifactStore:
        """The artifacts."""
        return ArtifactStore(self.artifacts_url, cache_dir=str(self.cache_dir))

    @property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    @property
    def night_starts_at(self) -> time:
        """`ONEREC_NIGHT_STARTS_AT`, from when on the nightly run of the day before is due.

        Raises:
            SettingError: It is no time of day.
        """
        text = os.environ.get("ONEREC_NIGHT_STARTS_AT") or "03:15"
        zone = zoneinfo.ZoneInfo(self.time_zone)
        try:
            return time.fromisoformat(text).replace(tzinfo=zone)
        except ValueError:
            raise SettingError("ONEREC_NIGHT_STARTS_AT", text, "use a time, 03:15 say") from None

    @property
    def owner(self) -> str:
        """`ONEREC_OWNER`, whom the UI names for every asset: `team:NAME` or an e-mail address.

        Raises:
            SettingError: It is neither.
        """
        text = os.environ.get("ONEREC_OWNER") or "team:recommendations"
        known = re.fullmatch(r"team:[A-Za-z0-9_]+|[^@\s]+@[^@\s]+\.[^@\s]+", text)
        require(known is not None, "ONEREC_OWNER", text, "use team:NAME or an e-mail address")
        return text

    @property
    def steps_at_once(self) -> int:
        """`ONEREC_STEPS_AT_ONCE`, steps of a run that work at once, each in a process of its own.

        With 1 they work one after the other in the process of the run.

        Raises:
            SettingError: It is no number from 1 on.
        """
        text = os.environ.get("ONEREC_STEPS_AT_ONCE") or "2"
        require(text.isdecimal() and int(text) > 0, "ONEREC_STEPS_AT_ONCE", text, "use 1 or more")
        return int(text)

    @property
    def report_dir(self) -> Path:
        return self.home / "report"

    @property
    def serving_dir(self) -> Path:
        """Where consumers read; `ONEREC_SERVING_DIR` names another directory."""
        given = os.environ.get("ONEREC_SERVING_DIR")
        return Path(given).expanduser().resolve() if given else self.root / "serving"

    @property
    def tables_dir(self) -> Path:
        """Where result tables are written."""
        return self.home / "tables"

    @cached_property
    def source(self) -> EventSource:
        """The event source; its days are found once.

        A damaged file in a log of whole files stops the runs that read it, not what only opens the
        log: the code location loads, and operators' commands work.
        """
        return open_source(
            self.dataset, data_dir=self.data_dir, config=self.config, opens_damaged=True
        )

    @property
    def feedback(self) -> Feedback:
        """What the log's events mean."""
        return feedback_of(self.source)

    @property
    def time_zone(self) -> str:
        """In which the log's days begin and end, and in which the schedules run."""
        return time_zone_of(self.source)

    @cached_property
    def stages(self) -> PipelineConfig:
        """The preset with the changes of the data set, of its kind of log and of the YAML file."""
        kind = KIND_STAGES[self.feedback.kind] if self.dataset == "own" else {}
        return stages_of(self.preset, self.dataset, self.config, kind)

    def partition_range(self) -> tuple[date, date | None]:
        """First day of the log and last one (None: it goes on)."""
        return self.source.first_day, self.source.last_day

    def remember(self) -> None:
        """Write `settings.yaml`, so that later commands open the same state."""
        self.home.mkdir(parents=True, exist_ok=True)
        values = {k: getattr(self, k) for k in REMEMBERED}
        text = yaml.safe_dump({k: str(v) for k, v in values.items() if v is not None})
        (self.home / "settings.yaml").write_text(text)


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment.

    `ONEREC_HOME` (default `.onerec` in the checkout), `ONEREC_DATASET`, `ONEREC_DATA_DIR`,
    `ONEREC_CONFIG` (a YAML file) and `ONEREC_PRESET` win over `$ONEREC_HOME/settings.yaml`. A YAML
    file with `events` in it is one's own data set, also without `ONEREC_DATASET`. The fields of
    `Runtime` are variables too: `ONEREC_DEVICES`, `ONEREC_COMPILE`, ...

    Raises:
        SettingError: A name is unknown, a value is not legal, or a URL holds credentials.
    """
    home = Path(environ.get("ONEREC_HOME") or CHECKOUT / ".onerec").expanduser().resolve()
    remembered = read_yaml(home / "settings.yaml") if (home / "settings.yaml").exists() else {}
    given = {k: environ.get(f"ONEREC_{k.upper()}") for k in REMEMBERED}
    given["dataset"] = given["dataset"] or _dataset_of(given["config"])
    if given["dataset"] and given["dataset"] != remembered.get("dataset"):
        remembered = {}  # what was remembered belongs to another data set
    chosen = {k: given[k] or remembered.get(k) for k in REMEMBERED}
    dataset = chosen["dataset"] or "simulated"
    require(dataset in DATASETS, "ONEREC_DATASET", dataset, f"use one of {', '.join(DATASETS)}")
    preset = chosen["preset"] or "tiny"
    require(preset in PRESETS, "ONEREC_PRESET", preset, f"use one of {', '.join(PRESETS)}")
    config = Path(chosen["config"]).expanduser().resolve() if chosen["config"] else None
    data_dir = absolute(chosen["data_dir"])
    require_no_credentials("ONEREC_DATA_DIR", data_dir or "")
    require_no_credentials("ONEREC_ARTIFACTS", environ.get("ONEREC_ARTIFACTS") or "")
    stages_of(preset, dataset, config, {})  # a wrong setting is named before any file is opened
    return Settings(
        home=home,
        dataset=dataset,
        data_dir=data_dir,
        config=config,
        preset=preset,
        runtime=runtime_of(environ),
    )


def stages_of(
    preset: str, dataset: str, config: Path | None, kind: Mapping[str, object]
) -> PipelineConfig:
    """Settings of the stages: preset, then data set, then its kind of log, then the YAML file."""
    stages = PRESETS[preset].override(DATASETS[dataset].stages).override(kind)
    return stages if config is None else override_by_file(stages, config, dataset)


def runtime_of(environ: Mapping[str, str]) -> Runtime:
    """The hardware that environment variables describe.

    Raises:
        SettingError: A value is not legal; its variable is named.
    """
    given: dict[str, Any] = {}
    for name, (kind, _) in pydantic_fields(Runtime).items():
        if text := environ.get(f"ONEREC_{name.upper()}"):
            try:
                given[name] = pydantic.TypeAdapter(kind).validate_strings(text)
            except pydantic.ValidationError:
                given[name] = text  # refused below, with a remedy
    try:
        return Runtime(**given)
    except SettingError as error:
        variable = f"ONEREC_{error.field.upper()}"
        raise SettingError(variable, error.value, error.remedy) from None


def override_by_file(stages: PipelineConfig, config: Path, dataset: str) -> PipelineConfig:
    """The stages with the changes of a YAML file, whose top-level keys are checked too.

    Raises:
        SettingError: The file is missing or not YAML, a name is unknown, or a value is not legal.
    """
    require(config.is_file(), "ONEREC_CONFIG", str(config), "no such file")
    values = read_yaml(config)
    sections = DATASETS[dataset].sections
    if sections is not None:
        for name, value in values.items():
            known = ("stages", *sections)
            remedy = f"no such section; the data set {dataset} has {', '.join(known)}"
            require(name in known, name, value, remedy)
    changes = values.get("stages")
    require(isinstance(changes, dict | None), "stages", changes, "must map stages to settings")
    try:
        return stages.override(changes)
    except SettingError as error:
        raise error.within("stages") from None


def _dataset_of(config: str | None) -> str | None:
    """`own` where a YAML file describes events, which no other data set does."""
    file = Path(config).expanduser() if config else None
    return "own" if file and file.is_file() and "events" in read_yaml(file) else None


def absolute(path: str | None) -> str | None:
    """A path as every working directory reads it; a URL as it is."""
    if path is None or "://" in path:
        return path
    return str(Path(path).expanduser().resolve())
