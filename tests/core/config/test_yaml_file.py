"""A YAML file is read strictly: what it says twice or cannot say is refused."""

from datetime import date
from pathlib import Path

import pytest

from onerec.config import PRESETS, SettingError, read_yaml


def read(directory: Path, text: str):
    file = directory / "my.yaml"
    file.write_text(text, encoding="utf-8")
    return read_yaml(file)


def test_names_and_values(tmp_path: Path):
    text = "a: &default {rate: 1e-3, days: 3}\nb:\n  <<: *default\n  days: 4\n"
    expected = {"a": {"rate": 0.001, "days": 3}, "b": {"rate": 0.001, "days": 4}}
    assert read(tmp_path, text) == expected
    assert read(tmp_path, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "a='given twice': keep one of them (line 3)"),
        ("a: {b: 1, c: {d: 1, d: 2}}", "d='given twice': keep one of them (line 1)"),
        ("- a\n", "must be a YAML mapping"),
        ("text", "must be a YAML mapping"),
        ("1: 2", "1=2: use a name"),
        ("? [1]\n: 2", "is not valid YAML"),
        ("a: [", "is not valid YAML"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("a: \x00", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str):
    with pytest.raises(SettingError) as raised:
        read(tmp_path, text)
    assert message in str(raised.value)
    assert str(tmp_path / "my.yaml") in str(raised.value)


def test_a_day_that_no_calendar_has_is_a_text(tmp_path: Path):
    days = {"a": date(2026, 2, 28), "b": "2026-02-30"}
    assert read(tmp_path, "a: 2026-02-28\nb: 2026-02-30\n") == days


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(SettingError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(SettingError, match="save the file as UTF-8"):
        read_yaml(tmp_path / "latin.yaml")


def test_a_stage_is_known_by_its_former_name_but_not_by_both() -> None:
    tiny = PRESETS["tiny"]
    assert tiny.override({"generation": {"beam": 32}}) == tiny.override({"decoding": {"beam": 32}})
    with pytest.raises(SettingError, match="decoding is given too"):
        tiny.override({"decoding": {"beam": 32}, "generation": {"beam": 16}})
