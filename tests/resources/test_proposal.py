"""`make init` proposes a file that reads the layout, says why, and never overwrites one."""

import importlib.util
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml

from onerec.config import SettingError
from onerec_dagster import init
from resources.file_source import FileSource, open_source
from resources.proposal.yaml_file import propose
from resources.settings import CHECKOUT

START = 1_433_221_332


def proposed(directory: Path, data: str = "data") -> dict:
    proposal = propose(str(directory / data), directory)
    (directory / "my_data.yaml").write_text(proposal.text)
    return yaml.safe_load(proposal.text)


def opened(directory: Path) -> FileSource:
    source = open_source("own", data_dir=None, config=directory / "my_data.yaml")
    assert isinstance(source, FileSource)
    return source


def columns(section: dict) -> dict:
    return section["columns"]


def write(directory: Path, name: str, header: str, rows: list[str]) -> None:
    (directory / "data").mkdir(exist_ok=True)
    (directory / "data" / name).write_text("\n".join([*([header] if header else []), *rows]))


def test_movielens_ratings_without_a_header(tmp_path: Path) -> None:
    rows = [f"{1 + k % 50}\t{1 + k % 70}\t{1 + k % 5}\t{874724710 + 5000 * k}" for k in range(400)]
    write(tmp_path, "u.tsv", "", rows)
    events = proposed(tmp_path)["events"]
    assert events["names"] == ["column_1", "column_2", "column_3", "column_4"]
    assert events["timestamp_unit"] == "s"
    wanted = {"user_id": "column_1", "item_id": "column_2", "event_time": "column_4"}
    assert wanted.items() <= columns(events).items()
    text = (tmp_path / "my_data.yaml").read_text()
    assert "rating: column_3 # few different numbers: values 1, 2, 3, 4, 5" in text
    assert "a guess, by its place: 50 different values" in text


@pytest.mark.parametrize("counts", [(1, 2, 3), (1, 1, 1, 1, 2, 6, 12)])
def test_small_whole_numbers_that_are_no_stars_are_quantities(
    tmp_path: Path, counts: tuple[int, ...]
) -> None:
    rows = [
        f"K{k % 50},M{k % 70},{START}{k:03},{counts[k % len(counts)]},{k / 7:.2f}"
        for k in range(400)
    ]
    write(tmp_path, "emptiones.csv", "emptor,merx,tempus,numerus,pretium", rows)
    assert columns(proposed(tmp_path)["events"]) == {
        "user_id": "emptor",
        "item_id": "merx",
        "event_time": "tempus",
        "quantity": "numerus",
    }
    # kept as a log of actions: as ratings none of its events would be positive
    assert opened(tmp_path).log.feedback.kind == "actions"


def test_recbole_atomic_file(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    rows = [f"{1 + k % 50}\t{1 + k % 70}\t{1 + k % 5}\t{874724710 + k}" for k in range(400)]
    write(tmp_path, "ml.inter", header, rows)
    events = proposed(tmp_path, "data/ml.inter")["events"]
    assert events["format"] == "csv"
    assert events["delimiter"] == "\t"
    assert columns(events)["user_id"] == "user_id:token"
    assert columns(events)["event_time"] == "timestamp:float"


def test_retailrocket_events(tmp_path: Path) -> None:
    kinds = ("view", "view", "addtocart", "transaction")
    rows = [
        f"{START}{k:03},{k % 60},{kinds[k % 4]},{k % 45},{k if k % 4 == 3 else ''}"
        for k in range(300)
    ]
    write(tmp_path, "events.csv", "timestamp,visitorid,event,itemid,transactionid", rows)
    events = proposed(tmp_path)["events"]
    assert events["path"] == "data/events.csv"
    assert events["timestamp_unit"] == "ms"
    wanted = {"user_id": "visitorid", "item_id": "itemid", "event_time": "timestamp"}
    assert wanted.items() <= columns(events).items()
    text = (tmp_path / "my_data.yaml").read_text()
    assert "event_type: event # values view, addtocart, transaction" in text
    assert "# not used: transactionid (75 different values" in text


def test_hm_transactions_and_articles(tmp_path: Path) -> None:
    rows = [f"2018-09-{1 + k % 28:02},{k % 40:064x},0{k % 30},0.05,2" for k in range(300)]
    header = "t_dat,customer_id,article_id,price,sales_channel_id"
    write(tmp_path, "transactions_train.csv", header, rows)
    articles = [f"0{k},Strap top {k},Vest top,Ladieswear" for k in range(30)]
    write(tmp_path, "articles.csv", "article_id,prod_name,product_type_name,index_group", articles)
    found = proposed(tmp_path)
    events = columns(found["events"])
    wanted = {"user_id": "customer_id", "item_id": "article_id", "event_time": "t_dat"}
    assert wanted.items() <= events.items()
    assert columns(found["items"])["item_id"] == "article_id"
    assert columns(found["items"])["title"] == "prod_name"
    assert found["stages"]["sessions"] == {"session_mode": "user_day"}
    text = (tmp_path / "my_data.yaml").read_text()
    assert "# not used: price" in text
    assert "# not used: sales_channel_id" in text


def test_the_example_is_read_like_its_own_file(tmp_path: Path) -> None:
    example = CHECKOUT / "examples" / "own_data" / "make_sample_data.py"
    spec = importlib.util.spec_from_file_location("sample", example)
    assert spec is not None
    assert spec.loader is not None
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)
    sample.write(tmp_path, users=60, days=3)
    meant = opened(tmp_path)
    found = proposed(tmp_path, ".")
    assert found["events"]["path"] == "watch_log/{date}.csv.gz"
    assert columns(found["events"])["watch_seconds"] == {"column": "play_ms", "scale": 0.001}
    assert columns(found["events"])["is_like"] == "liked"
    source = opened(tmp_path)
    day = source.first_day
    assert day == meant.first_day
    assert source.events(day).equals(meant.events(day))
    assert source.items(day).equals(meant.items(day))


def test_parquet_with_times_in_words_and_vectors(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    frame = pd.DataFrame(
        {
            "userId": [f"u{k % 30}" for k in range(200)],
            "trackId": [f"t{k % 20}" for k in range(200)],
            "playedAt": [datetime(2026, 6, 1 + k % 9, 10, tzinfo=UTC) for k in range(200)],
            "listen_time": [float(k % 200) for k in range(200)],
        }
    )
    for day in ("2026-06-01", "2026-06-02"):
        frame.to_parquet(tmp_path / "data" / f"plays-{day}.parquet")
    vectors = {"trackId": [f"t{k}" for k in range(20)], "emb": [[0.5, float(k)] for k in range(20)]}
    pd.DataFrame(vectors).to_parquet(tmp_path / "data" / "vectors.parquet")
    found = proposed(tmp_path)
    assert found["events"]["path"] == "data/plays-{date}.parquet"
    assert columns(found["events"]) == {
        "user_id": "userId",
        "item_id": "trackId",
        "event_time": "playedAt",
        "watch_seconds": "listen_time",
    }
    assert columns(found["item_vectors"]) == {"item_id": "trackId", "vector": "emb"}


def test_american_dates_and_semicolons(tmp_path: Path) -> None:
    rows = [f"u{k % 9};{k % 7};11/{12 + k % 9}/2019 9:0{k % 9}:58 AM" for k in range(100)]
    write(tmp_path, "log.csv", "User;News ID;Time", rows)
    events = proposed(tmp_path)["events"]
    assert events["delimiter"] == ";"
    assert events["timestamp_format"] == "%m/%d/%Y %I:%M:%S %p"
    assert columns(events)["item_id"] == "News ID"
    text = (tmp_path / "my_data.yaml").read_text()
    assert "# time_zone: Europe/Berlin # the times name no zone" in text


def test_a_catalogue_in_another_language_is_found_by_the_log_s_own_column(tmp_path: Path) -> None:
    rows = [f"C{k % 9};SKU{k % 40};{1 + k % 9:02}.06.2026 09:0{k % 9}" for k in range(200)]
    write(tmp_path, "bons.csv", "Kunde;Artikel;Zeitpunkt", rows)
    items = [f"SKU{k};Produkt Nummer {k};Gruppe {k % 4}" for k in range(40)]
    write(tmp_path, "artikel.csv", "Artikel;Bezeichnung;Warengruppe", items)
    found = proposed(tmp_path)
    assert columns(found["items"]) == {
        "item_id": "Artikel",
        "title": "Bezeichnung",
        "category": "Warengruppe",
    }
    assert columns(found["events"])["item_id"] == "Artikel"


def test_files_without_users_items_and_times_say_what_was_seen(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "colour,size", ["red,3", "blue,4"])
    with pytest.raises(ValueError, match=r"Columns are: a\.csv: colour, size"):
        propose(str(tmp_path / "data"), tmp_path)
    with pytest.raises(
        SettingError, match=r"DATA='.*': no Parquet, CSV or JSON-lines file is found"
    ):
        propose(str(tmp_path / "nowhere"), tmp_path)


def test_the_command_writes_once_and_never_over_a_file(tmp_path: Path) -> None:
    rows = [f"{START + k},{k % 6},{k % 5},30" for k in range(100)]
    write(tmp_path, "log.csv", "timestamp,user,item,watch_time", rows)
    command = [sys.executable, "-m", "onerec_dagster.init"]
    env = {**os.environ, "ONEREC_DATA": "data", "PYTHONPATH": str(CHECKOUT)}
    done = [
        subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert done[0].returncode == 0, done[0].stderr
    assert "make inspect CONFIG=my_data.yaml" in done[0].stdout
    assert "user_id: user # 6 different values" in done[0].stdout
    assert done[1].returncode == 1
    assert "my_data.yaml exists and is kept" in done[1].stderr
    assert columns(yaml.safe_load((tmp_path / "my_data.yaml").read_text())["events"])


def test_a_proposal_that_cannot_be_opened_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{START + k},{k % 6},{k % 5},30" for k in range(100)]
    write(tmp_path, "log.csv", "timestamp,user,item,watch_time", rows)

    def refuse(*args: object, **kwargs: object) -> None:
        raise SettingError("items.path", "items.csv", "no such file")

    monkeypatch.setattr(init, "open_source", refuse)
    monkeypatch.setenv("ONEREC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ONEREC_CONFIG", str(tmp_path / "my_data.yaml"))
    with pytest.raises(SystemExit, match="is not kept, correct the data, or write"):
        init.main()
    assert not (tmp_path / "my_data.yaml").exists()


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_proposed(tmp_path: Path) -> None:
    rows = [f"{START + k},{k % 6},{k % 5},30" for k in range(100)]
    write(tmp_path, "log.csv", "timestamp,user,item,watch_time", rows)
    write(tmp_path, "notes.txt", "a, b", ["1, 2", "no row of a table"])
    (tmp_path / "data" / "cut.parquet").write_bytes(b"PAR1 and no more")
    proposal = propose(str(tmp_path / "data"), tmp_path)
    assert columns(yaml.safe_load(proposal.text)["events"])["user_id"] == "user"
    notes = [note for note in proposal.notes if note.startswith("not read")]
    assert sorted(Path(note.split(": ")[1]).name for note in notes) == ["cut.parquet", "notes.txt"]
    (tmp_path / "data" / "log.csv").unlink()
    with pytest.raises(ValueError, match=r"DATA=.*(notes\.txt|cut\.parquet)"):
        propose(str(tmp_path / "data"), tmp_path)
