"""Which column of a file of one's own data fills which one of the contract."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from pydantic import BaseModel

from onerec.config import SettingError
from onerec.datasets.data_file import DataFile
from onerec.datasets.file_problems import loose
from onerec.datasets.late_keys import LOOKED_THROUGH, seen
from onerec.datasets.own_config import Column, Feature, ItemFiles, UserFiles
from onerec.datasets.section_files import SectionFiles


@dataclass(frozen=True)
class MappedFile:
    """A file, and which of its columns fills which column of the contract.

    Attributes:
        file: Where the rows are.
        number: Its place in the delivered order.
        columns: Contract name -> the file's column.
        features: Further columns of a catalogue or of users, by the name that they get.
        day: Of the path, where the path holds one: every row belongs to its delivery.
    """

    file: DataFile
    number: int
    columns: Mapping[str, Column]
    day: date | None
    features: Mapping[str, Feature] = field(default_factory=dict)


@dataclass(frozen=True)
class MappedSection:
    """The files of a section with their columns."""

    files: SectionFiles

    def usable(self) -> tuple[list[DataFile], ValueError | None]:
        """Files that have the columns, and the error of the first that cannot be used; an empty
        file has no column at all and is left out.

        Raises:
            ValueError: There is no file, or none that can be read.
        """
        found, errors = [], []
        every = self.files.every()
        for file in every:
            try:
                if file.names:
                    self.mapped(file, others=every)
                    found.append(file)
            except ValueError as error:
                errors.append(error)
        if errors and not found:
            raise errors[0]
        return found, errors[0] if errors else None

    def numbered(self, found: Sequence[DataFile]) -> Iterator[MappedFile]:
        """Files in the delivered order, each with the day of its path."""
        for number, file in enumerate(found):
            yield self.mapped(file, number, self.files.day_of(file))

    def mapped(
        self,
        file: DataFile,
        number: int = 0,
        day: date | None = None,
        *,
        others: Sequence[DataFile] | None = None,
    ) -> MappedFile:
        """A file with the columns that it has.

        Args:
            file: One of the section's.
            number: See `MappedFile`.
            day: See `MappedFile`.
            others: All files of the section; looked for where a message needs them by default.

        Raises:
            SettingError: It lacks a required one.
        """
        mapping = self._mapping
        present = {*file.names, *file.path_columns}
        alike = {loose(n): n for n in reversed((*file.names, *file.path_columns))}
        columns = {}
        for contract in type(mapping).model_fields:
            source = getattr(mapping, contract)
            if contract not in mapping.model_fields_set and contract in alike:
                source = Column(column=contract if contract in present else alike[contract])
                self._require_one_alike(file, contract, present)
            if source is None:
                continue
            source = source.as_named_in(present)
            # a key of JSON may come after the first lines, or not at all
            is_late = file.is_json and contract in self._optional
            if is_late and source.column not in present:
                columns[contract] = source
            elif set(source.names) <= present:
                self.require_columns(file, contract, source.names)
                columns[contract] = source
            elif contract not in self._optional:
                every = self.files.every() if others is None else others
                is_elsewhere = seen(every, source) is not False
                self.require_columns(file, contract, source.names, is_elsewhere=is_elsewhere)
        features = {n: f for n, f in self._features.items() if f.column in present or file.is_json}
        return MappedFile(file, number, columns, day, features)

    def _require_one_alike(self, file: DataFile, contract: str, present: set[str]) -> None:
        """Check that it is clear which column is looked up under the contract's name.

        Raises:
            SettingError: Several are called so but for case and blanks.
        """
        alike = sorted(name for name in present if loose(name) == contract)
        if contract not in present and len(alike) > 1:
            remedy = (
                f"{file.path}: it may be each of {', '.join(map(repr, alike))}: name the one meant"
            )
            raise SettingError(f"{self.files.name}.columns.{contract}", None, remedy)

    def require_optional(self, known: Sequence[DataFile]) -> None:
        """Check the columns that some files may lack: those that all lack have a wrong name.

        Raises:
            SettingError: One has.
        """
        for key, source in self._may_lack():
            if seen(known, source) is False:
                _require_columns(known[0], key, source.names, f"{_remedy(key)}.")

    def unseen(self, known: Sequence[DataFile]) -> list[str]:
        """Warnings about columns that may come, but that so far nothing has."""
        most = f"{LOOKED_THROUGH >> 20} MiB"
        return [
            f"{key}={source.column!r} is in none of the newest {most} of lines that were looked "
            "through: if it is not spelled so, nothing is known of it; correct it"
            for key, source in self._may_lack()
            if seen(known, source) is None
        ]

    def _may_lack(self) -> Iterator[tuple[str, Column]]:
        """Columns that a file may lack, by their keys in the YAML file."""
        for contract in self._optional:
            if (source := getattr(self._mapping, contract)) is not None:
                yield f"{self.files.name}.columns.{contract}", source
        for feature, source in self._features.items():
            yield f"{self.files.name}.features.{feature}", Column(column=source.column)

    def require_columns(
        self,
        file: DataFile,
        contract: str,
        names: tuple[str, ...],
        *,
        is_elsewhere: bool = False,
        or_else: str = "",
    ) -> None:
        """Check that a file, whose header can be read, has the columns of one of the contract's.

        Args:
            file: One of the section's.
            contract: Name of the contract.
            names: The file's names.
            is_elsewhere: Other files have it.
            or_else: What else mends it.

        Raises:
            SettingError: It lacks one, or has two of that name.
        """
        key = f"{self.files.name}.columns.{contract}"
        remedy = f"{_remedy(key)}{or_else}."
        if is_elsewhere:
            remedy = (
                f"Other files of {self.files.name}.path have it: name only those there, if this "
                "one is another table; else list both names, [name, name in this file]."
            )
        _require_columns(file, key, names, remedy)

    @property
    def _mapping(self) -> BaseModel:
        return self.files.section.columns

    @property
    def _optional(self) -> list[str]:
        fields = type(self._mapping).model_fields
        return [name for name, kind in fields.items() if kind.default is None]

    @property
    def _features(self) -> Mapping[str, Feature]:
        section = self.files.section
        return section.features if isinstance(section, ItemFiles | UserFiles) else {}


def _remedy(key: str) -> str:
    lists = ", as lists: not a column for each dimension" if key.endswith(".vector") else ""
    return f"Set {key} to the column that holds it{lists}"


def _require_columns(file: DataFile, key: str, names: tuple[str, ...], remedy: str) -> None:
    try:
        file.require_columns(names, remedy)
    except ValueError as error:
        raise SettingError(key, names[-1], str(error)) from None
