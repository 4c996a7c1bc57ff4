"""The worked example of docs/own_data.md does what it says."""

import importlib.util
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from onerec.config import PipelineConfig
from resources.file_source import feedback_of, open_source

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


RETAILROCKET = """timestamp,visitorid,event,itemid,transactionid
1433221332117,257597,view,355908,
1433224214164,992329,addtocart,248676,
1433222276276,483717,transaction,253185,4000
"""
HM = """t_dat,customer_id,article_id,price,sales_channel_id
2020-07-01,000058a1,0663713001,0.050830,2
2020-07-01,000058a1,0541518023,0.030491,2
2020-07-02,00007d2d,0505221004,0.015237,1
"""
HM_ITEMS = """article_id,product_code,prod_name,product_type_name,index_group_name,colour_group_name
0663713001,0663713,Atlanta Push Body,Underwear body,Ladieswear,Black
0541518023,0541518,Rae Push,Bra,Ladieswear,Light Pink
0505221004,0505221,Inca Jumper,Sweater,Ladieswear,"Dark, Pink"
"""


def documented_layouts() -> list[dict[str, Any]]:
    text = (CHECKOUT / "docs" / "example_shop.md").read_text()
    return [yaml.safe_load(block.split("```")[0]) for block in text.split("```yaml\n")[1:]]


def test_logs_of_the_documented_public_layouts_are_read(tmp_path: Path) -> None:
    _, retailrocket, hm = documented_layouts()
    (tmp_path / "events.csv").write_text(RETAILROCKET)
    (tmp_path / "transactions_train.csv").write_text(HM)
    (tmp_path / "articles.csv").write_text(HM_ITEMS)
    (tmp_path / "retailrocket.yaml").write_text(yaml.safe_dump(retailrocket))
    source = open_source("own", data_dir=None, config=tmp_path / "retailrocket.yaml")
    rows = source.events(date(2015, 6, 2)).to_pylist()
    assert [(r["user_id"], r["item_id"], r["event_type"]) for r in rows] == [
        ("257597", "355908", "view"),
        ("992329", "248676", "addtocart"),
        ("483717", "253185", "transaction"),
    ]
    assert feedback_of(source).kind == "shop"
    assert len(source.items(date(2015, 6, 2))) == 3  # without a catalogue the log is it
    (tmp_path / "hm.yaml").write_text(yaml.safe_dump(hm))
    source = open_source("own", data_dir=None, config=tmp_path / "hm.yaml")
    assert (source.first_day, source.last_day) == (date(2020, 7, 1), date(2020, 7, 2))
    assert source.events(source.first_day)["item_id"].to_pylist() == ["0663713001", "0541518023"]
    items = source.items(source.last_day).to_pandas().set_index("item_id")
    assert items.title["0505221004"] == "Inca Jumper"
    assert "colour=Dark, Pink" in items.features["0505221004"]
    assert feedback_of(source).kind == "actions"
