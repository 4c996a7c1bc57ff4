"""The worked example of docs/own_data.md does what it says."""

import importlib.util
from pathlib import Path

import yaml

from onerec.config import PipelineConfig
from resources.file_source import open_source

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "examples" / "own_data"


def test_the_sample_data_is_read_by_its_mapping(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("sample", EXAMPLE / "make_sample_data.py")
    assert spec is not None
    assert spec.loader is not None
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)
    sample.write(tmp_path, users=60, days=3)
    source = open_source("own", data_dir=None, config=tmp_path / "my_data.yaml")
    assert str(source.first_day) == "2026-06-01"
    assert str(source.last_day) == "2026-06-03"
    events = source.events(source.first_day).to_pandas()
    assert len(events) > 50
    assert (events.event_time.dt.date == source.first_day).all()
    assert events.watch_seconds.between(0, 500).all()
    assert events.is_like.dtype == bool
    items = source.items(source.first_day).to_pandas()
    assert set(events.item_id) <= set(items.item_id)
    assert items.title.notna().all()
    assert len(source.items(source.last_day)) == len(items) + 6


def test_the_documented_mapping_is_the_shipped_one() -> None:
    shipped = yaml.safe_load((EXAMPLE / "my_data.yaml").read_text())
    documented = (CHECKOUT / "docs" / "own_data.md").read_text().split("```yaml\n")[1].split("```")
    assert yaml.safe_load(documented[0]) == shipped
    PipelineConfig().override(shipped["stages"])
