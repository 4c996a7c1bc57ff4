"""A damaged file in a log of whole files stops the runs that read it, not what opens the log."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from resources.file_source import FileSource, open_source
from resources.settings import load_settings
from tests.resources.own_files import DAY, DAY_MS, MAPPING, NEXT, NOON_MS, events_frame

BREAKS = {
    "cut.parquet": b"PAR1 and no more",
    "rows.csv": b"uid,vid,ts,play_ms,liked\n1,2,3\n",
    "header.csv": b"user,vid,ts,play_ms,liked\n1,2,3,4,0\n",
    "packed.csv": b"\x1f\x8b\x08\x00 and no gzip",
}


@pytest.fixture(params=sorted(BREAKS))
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A log of two days, and one file that cannot be used."""
    (tmp_path / "log").mkdir()
    events_frame([NOON_MS, NOON_MS + DAY_MS]).to_csv(tmp_path / "log" / "a.csv", index=False)
    (tmp_path / "log" / request.param).write_bytes(BREAKS[request.param])
    path = tmp_path / "my_data.yaml"
    path.write_text(yaml.safe_dump({"events": {"path": "log", "columns": MAPPING}}))
    return path


def test_the_log_opens_and_reading_it_names_the_file(config: Path) -> None:
    source = open_source("own", data_dir=None, config=config, opens_damaged=True)
    assert isinstance(source, FileSource)
    assert (source.first_day, source.last_day) == (DAY, NEXT)
    with pytest.raises(ValueError, match=r"/log/(cut|rows|header|packed)\."):
        source.events(DAY)
    with pytest.raises(ValueError, match=r"/log/(cut|rows|header|packed)\."):
        source.require_readable()


def test_the_code_location_opens_it_so(config: Path, tmp_path: Path) -> None:
    settings = load_settings({"ONEREC_HOME": str(tmp_path), "ONEREC_CONFIG": str(config)})
    assert settings.partition_range() == (DAY, NEXT)


def days_of(config: Path, *, opens_damaged: bool) -> tuple[date, date | None]:
    source = open_source("own", data_dir=None, config=config, opens_damaged=opens_damaged)
    return source.first_day, source.last_day


def test_otherwise_it_does_not_open(config: Path) -> None:
    with pytest.raises(ValueError, match=r"/log/(cut|rows|header|packed)\."):
        days_of(config, opens_damaged=False)


def test_where_no_file_can_be_read_nothing_opens(config: Path) -> None:
    (config.parent / "log" / "a.csv").unlink()
    with pytest.raises(ValueError, match=r"/log/(cut|rows|header|packed)\."):
        days_of(config, opens_damaged=True)
