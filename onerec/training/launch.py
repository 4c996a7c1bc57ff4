"""Training jobs as JSON files, for one process or one per device.

A job is a frozen dataclass of directories, settings and a `runtime`, with a method `run`. On
several devices every process runs the same job, and the files of the first one are the result.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar, get_args, get_type_hints

import pydantic

from onerec.config import Runtime, SettingError, require
from onerec.training.runtime import process_rank

Log = Callable[[str], None]
J = TypeVar("J")


class Job(Protocol):
    """A training that can run in one process or in one per device."""

    @property
    def runtime(self) -> Runtime:
        """Hardware."""
        ...

    def run(self, out_dir: Path, *, scratch: Path, log: Log) -> Mapping[str, float]:
        """Train, and write the result.

        Args:
            out_dir: Gets the files.
            scratch: Directory of unfinished work of all processes, to resume from.
            log: Called with progress messages.

        Returns:
            Timings by name, which the files do not contain.
        """
        ...


def job_to_json(job: Job) -> dict[str, Any]:
    """The inverse of `parse_job`."""
    return pydantic.TypeAdapter(type(job)).dump_python(job, mode="json")


def parse_job(kind: type[J], values: Mapping[str, Any]) -> J:
    """A job from JSON values: directories as strings, settings as objects.

    Raises:
        ValueError: A name is unknown or missing, a value is out of range, or a directory missing.
    """
    known = {field.name: field for field in fields(kind)}  # pyright: ignore
    for name in values:
        require(name in known, name, values[name], f"no such setting; use {', '.join(known)}")
    for name, field in known.items():
        needed = field.default is MISSING and field.default_factory is MISSING
        require(name in values or not needed, name, None, "the training job has to name it")
    types = get_type_hints(kind)
    return kind(**{name: _parsed(name, types[name], value) for name, value in values.items()})


def _parsed(name: str, kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        require(isinstance(value, Mapping), name, value, "must map names to values")
        allowed = [field.name for field in fields(kind)]
        for key in value:
            remedy = f"no such setting; {name} has {', '.join(sorted(allowed))}"
            require(key in allowed, f"{name}.{key}", value[key], remedy)
    try:
        parsed = pydantic.TypeAdapter(kind).validate_python(value)  # pyright: ignore[reportArgumentType]
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        found = first.get("ctx", {}).get("error")
        if isinstance(found, SettingError):
            raise found.within(name) from None
        place = ".".join([name, *map(str, first["loc"])])
        raise SettingError(place, first["input"], first["msg"]) from None
    is_directory = kind is Path or Path in get_args(kind)
    require(not is_directory or parsed is None or parsed.is_dir(), name, value, "no such directory")
    return parsed


def job_kind(name: str) -> type[Job]:
    """The class of a job by its dotted name.

    Raises:
        ValueError: It is not in package `onerec`.
    """
    module, _, kind = name.rpartition(".")
    require(module.startswith("onerec."), "job", name, "use the dotted name of a job of `onerec`")
    return getattr(import_module(module), kind)


def run_job_file(kind: type[Job], file: Path, *, log: Log) -> None:
    """Run the job of a JSON file, or this process's share of it.

    Beside the job's fields the file names `out`, the directory to write, which appears when it is
    complete, and maybe `scratch` (`<out>.scratch` by default), which is deleted at the end.

    Args:
        kind: Class of the job.
        file: The JSON file.
        log: Called with progress messages.

    Raises:
        ValueError: A field is wrong, or `out` exists.
    """
    values = json.loads(file.read_text())
    require("out" in values, "out", None, "name the directory to write")
    out = Path(values.pop("out"))
    scratch = Path(values.pop("scratch", f"{out}.scratch"))
    require(not out.exists(), "out", str(out), "it exists already; delete it or choose another")
    job = parse_job(kind, values)
    if process_rank(job.runtime) > 0:
        with TemporaryDirectory() as unused:  # every process has the whole result
            job.run(Path(unused), scratch=scratch, log=lambda message: None)
        return
    aside = out.with_name(f"{out.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    job.run(aside, scratch=scratch, log=log)
    os.replace(aside, out)
    shutil.rmtree(scratch, ignore_errors=True)
