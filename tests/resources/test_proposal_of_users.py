"""`make init` proposes attributes of users, and says which columns it leaves out and why."""

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from resources.file_source import FileSource, open_source
from resources.proposal.users import after_the_fact
from resources.proposal.yaml_file import Proposal, propose

DAY = date(2026, 6, 1)


def write_log(directory: Path) -> None:
    (directory / "data").mkdir()
    rows = [f"u{k % 40},i{k % 30},{DAY + timedelta(days=k % 5)} 10:00:00,20" for k in range(600)]
    header = "user_id,item_id,event_time,watch_seconds"
    (directory / "data" / "events.csv").write_text("\n".join([header, *rows]))


def write_users(directory: Path, name: str, header: str, rows: list[str]) -> None:
    file = directory / "data" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([header, *rows]))


def proposed(directory: Path) -> tuple[dict, Proposal]:
    proposal = propose(str(directory / "data"), directory)
    (directory / "my_data.yaml").write_text(proposal.text)
    return yaml.safe_load(proposal.text), proposal


def test_attributes_are_proposed_and_the_rest_is_left_out_with_the_reason(tmp_path: Path) -> None:
    write_log(tmp_path)
    header = "id,Country,Age Range,age,num_orders,last_login,e-mail,shop,signed_up,nothing"
    rows = [
        f"u{k},{'DE' if k % 3 else 'FR'},{10 * (k % 4)}-{10 * (k % 4) + 9},{18 + k % 39},{k % 7},"
        f"2026-06-0{1 + k % 5},m{k}@x.org,1,2020-0{1 + k % 9}-11,"
        for k in range(42)
    ]
    write_users(tmp_path, "customers.csv", header, rows)
    settings, proposal = proposed(tmp_path)
    users = settings["users"]
    assert users["path"] == "data/customers.csv"
    assert users["columns"] == {"user_id": "id"}
    assert users["features"] == {"country": "Country", "age_range": "Age Range"}
    assert "one row a user; 40 of them are in the first rows of the log" in proposal.text
    left_out = {
        line.split("left out: ")[1].split(" ")[0]: line.rpartition("): ")[2]
        for line in proposal.text.splitlines()
        if "left out: " in line and "): " in line
    }
    assert "write a column of ranges" in left_out["age"]
    assert "counts what users did" in left_out["num_orders"]
    assert "last there" in left_out["last_login"]
    assert "nearly unique" in left_out["e-mail"]
    assert left_out["shop"] == "one value only"
    assert left_out["signed_up"].startswith("times")
    assert "left out: nothing (empty)" in proposal.text
    source = open_source("own", data_dir=None, config=tmp_path / "my_data.yaml")
    assert isinstance(source, FileSource)
    attributes = source.user_attributes()
    assert attributes is not None
    row = {"user_id": "u0", "country": "FR", "age_range": "0-9"}
    assert attributes.slice(0, 1).to_pylist() == [row]


def test_a_table_of_users_is_no_catalogue_though_its_key_is_called_id(tmp_path: Path) -> None:
    write_log(tmp_path)
    log = tmp_path / "data" / "events.csv"
    log.write_text(log.read_text().replace(",i", ",").replace("u", "").replace("ser_id", "user_id"))
    rows = [f"{k},name {k},{k % 2}" for k in range(40)]
    write_users(tmp_path, "users.csv", "id,title,category", rows)
    settings, _ = proposed(tmp_path)
    assert "items" not in settings
    assert settings["users"]["features"] == {"category": "category"}


def test_of_daily_tables_the_newest_is_named(tmp_path: Path) -> None:
    write_log(tmp_path)
    for day in ("2026-06-04", "2026-06-05"):
        rows = [f"u{k},{'pro' if k % 2 else 'free'}" for k in range(40)]
        write_users(tmp_path, f"users/{day}.csv", "user_id,plan", rows)
    assert proposed(tmp_path)[0]["users"]["path"] == "data/users/2026-06-05.csv"


def test_ids_that_are_not_the_events_are_shown_beside_them(tmp_path: Path) -> None:
    write_log(tmp_path)
    write_users(tmp_path, "users.csv", "user_id,plan", [f"U-{k},{k % 2}" for k in range(40)])
    settings, proposal = proposed(tmp_path)
    assert "users" not in settings
    (note,) = [n for n in proposal.notes if "looks like a table of users" in n]
    assert "'U-0' there, 'u0' in the log" in note


def test_names_that_yaml_reads_otherwise_and_those_of_no_use(tmp_path: Path) -> None:
    write_log(tmp_path)
    header = "user_id,on,attribute_4,\u00e9,\u00fc"
    rows = [f"u{k},{k % 2},{k % 3},{k % 4},{k % 5}" for k in range(40)]
    write_users(tmp_path, "users.csv", header, rows)
    features = proposed(tmp_path)[0]["users"]["features"]
    assert features.keys() == {"on", "attribute_4", "attribute_3", "attribute_5"}
    assert sorted(features.values()) == ["attribute_4", "on", "\u00e9", "\u00fc"]


def test_ids_of_bytes_are_left_out(tmp_path: Path) -> None:
    write_log(tmp_path)
    ids = pa.array([bytes([255, k]) for k in range(40)], pa.binary())
    pq.write_table(pa.table({"user_id": ids, "plan": ["a", "b"] * 20}), tmp_path / "data/u.parquet")
    assert "users" not in proposed(tmp_path)[0]


def test_a_table_without_an_attribute_is_a_comment(tmp_path: Path) -> None:
    write_log(tmp_path)
    write_users(tmp_path, "users.csv", "user_id,total_likes", [f"u{k},{k % 5}" for k in range(40)])
    settings, proposal = proposed(tmp_path)
    assert "users" not in settings
    assert "no column of the users' table can be learned from" in proposal.text
    assert "left out: total_likes" in proposal.text


@pytest.mark.parametrize("name", ["last seen", "recency", "follow user num", "order count", "ltv"])
def test_names_of_counts_after_the_fact(name: str) -> None:
    assert "it may know the day" in (after_the_fact(name) or "")


@pytest.mark.parametrize("name", ["country", "age range", "plan", "occupation", "city", "language"])
def test_names_of_what_people_are(name: str) -> None:
    assert after_the_fact(name) is None
