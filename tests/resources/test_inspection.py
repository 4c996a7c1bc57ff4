"""A look at a log finds what is wrong with it, and names the line that changes it."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from assets.sessions import session_variables
from onerec import schema
from onerec.config import PipelineConfig, TokenizerConfig
from onerec.config.feedback import FEEDBACK
from onerec.datasets import EventSource
from resources.dbt import session_dbt
from resources.deliveries import deliveries
from resources.file_source import open_source
from resources.inspection import (
    delivery_findings,
    temporary_warehouse,
    training_findings,
    value_findings,
)
from resources.inspection.findings import Finding
from resources.inspection.findings_text import LONGEST_TABLE, findings_as_text
from resources.inspection.log_inspection import SessionBuild, days_of, inspect_log
from resources.inspection.temporary_warehouse import every_day, land_catalogue
from resources.warehouse import Warehouse
from tests.resources.small_inspection import PIPELINE, inspected, the
from tests.sql import delivered

REGULAR = [  # 30 users, four events each on three of four days; the third day is empty
    f"u{user},i{(user + k + day) % 20},2026-06-0{day} 10:0{k}:00,40,{int(user == k)}"
    for day in (1, 2, 4)
    for user in range(30)
    for k in range(4)
]
BOT = [f"bot,i{k % 20},2026-06-04 12:{k // 60:02}:{k % 60:02},1,0" for k in range(2400)]
TIES = [f"t,i{k},2026-06-02 20:00:00,40,0" for k in range(4)]
BAD = [
    "u1,x1,2026-06-01 11:00:00,40,0",
    "u2,x1,2026-06-01 11:00:00,40,0",
    "u3,i1,2026-06-01 11:00:00,much,0",
]
ROWS = [*REGULAR, *BOT, *TIES, *BAD]


def write_log(home: Path, rows: Sequence[str]) -> None:
    (home / "log").mkdir()
    (home / "log" / "a.csv").write_text(
        "user_id,item_id,event_time,watch_seconds,is_like\n" + "\n".join(rows)
    )
    (home / "log" / "notes.json").write_text("{}")
    items = [f"i{k},{'the same' if k < 5 else f'title {k}'}" for k in range(22)]
    (home / "items.csv").write_text("item_id,title\n" + "\n".join(items))
    vectors = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    vectors[3] = np.nan
    vectors[5:9] = vectors[4]
    table = {"item_id": [f"i{k}" for k in range(20)], "vector": list(vectors)}
    pq.write_table(pa.table(table), home / "vectors.parquet")


def opened(home: Path, **sections: object) -> EventSource:
    config = home / "my.yaml"
    config.write_text(yaml.safe_dump({"events": {"path": "log"}, **sections}))
    return open_source("own", data_dir=None, config=config)


def look(home: Path, source: EventSource, stages: PipelineConfig = PIPELINE) -> list[Finding]:
    days = days_of(source)
    build = SessionBuild(
        dbt=session_dbt(home / "dbt", home / "never.duckdb", column_metadata=False),
        variables=session_variables(stages.sessions),
        directory=home / "state",
    )
    findings = inspect_log(source, stages, build, days)
    assert not (home / "never.duckdb").exists()
    assert not list((home / "state").iterdir()), "the warehouse was left behind"
    return findings


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    home = delivered.temporary_home()
    write_log(home, ROWS)
    items, vectors = {"path": "items.csv"}, {"path": "vectors.parquet"}
    return look(home, opened(home, items=items, item_vectors=vectors))


def test_what_was_read_and_what_was_not(findings: list[Finding]) -> None:
    assert the(findings, "rows of events").text.startswith(f"{len(ROWS):,} rows of events in 1 ")
    assert "notes.json" in the(findings, "neither Parquet nor CSV").text
    days = the(findings, "4 days, 2026-06-01 to 2026-06-04")
    # 120 regular rows, 3 bad ones; 4 ties; nothing; the bot
    assert [row["rows"] for row in days.rows] == [123, 124, 0, 2520]
    assert the(findings, "1 days have no row").text.endswith("2026-06-03")


def test_rejected_rows_come_with_reasons_samples_and_the_line_to_change(
    findings: list[Finding],
) -> None:
    assert the(findings, "rows are rejected").text.startswith(f"3 of {len(ROWS):,} rows")
    unknown = the(findings, "item_id is not in the catalogue")
    assert unknown.text.startswith("2 rows")
    assert unknown.setting.startswith("items.path")
    assert [row["value"] for row in unknown.rows] == ["x1", "x1"]
    assert int(unknown.rows[0]["row"]) == len(ROWS) - 2
    number = the(findings, "watch_seconds is not a number")
    assert number.setting == "events.columns.watch_seconds"
    assert number.rows[0]["value"] == "much"
    missing = the(findings, "of the log have no catalogue row")
    assert missing.text.startswith("1 of 21 items")
    assert "(2 events), e.g. 'x1'" in missing.text
    assert the(findings, "of the catalogue are not in the log").text.startswith("2 of 22 items")


def test_order_and_repeats(findings: list[Finding]) -> None:
    accepted = len(ROWS) - len(BAD)
    ties = the(findings, "share their time")
    assert f"{4 / accepted:.1%} of the events share" in ties.text
    assert f"; {1 / 92:.1%} of the sessions count as unordered" in ties.text
    assert ties.setting == "stages.sessions.session_order: auto"
    watched = [tuple(row.split(",")[:2]) for row in [*REGULAR, *TIES]]
    share = 1 - len(set(watched)) / len(watched)
    assert the(findings, "had consumed in an earlier").text.startswith(f"{share:.1%}")


def test_sessions_and_the_test_day(findings: list[Finding]) -> None:
    # three sessions of each user, the bot's and that of the ties
    counts = the(findings, "of them good")
    assert counts.text.startswith("92 sessions, 91 of them good")
    learned = the(findings, "to learn from")
    assert learned.text.startswith("for 2026-06-04: 61 good sessions on 2 days with sessions")
    # the day before the test day is empty: the last day with sessions validates
    assert learned.text.endswith(", 31 of them on 2026-06-02, which validates")
    assert learned.level == "ok"
    cases = the(findings, "cases (users")
    assert "31 users, 30 cases" in cases.text
    assert "30 of them with a history" in cases.text
    assert cases.level == "warning"


def test_an_account_that_is_most_of_a_day_is_warned_about(findings: list[Finding]) -> None:
    bot = the(findings, "moves popularity")
    assert bot.level == "warning"
    assert f"'bot' has {2400 / 2520:.0%} of the events of 2026-06-04" in bot.text
    # twice the four events of the others
    assert bot.setting == "stages.sessions.max_events_per_user_day: 8 (now 0)"


def test_signals_and_what_the_tokenizer_gets(findings: list[Finding]) -> None:
    likes = sum(row.endswith(",1") for row in ROWS)
    assert the(findings, "ltr:").text.startswith(f"ltr: {likes} of 2,764 events")
    assert "no tower can learn" in the(findings, "wtr: 0").text
    assert the(findings, "codes a level").text.startswith("22 items before 2026-06-04, 4 codes")
    assert the(findings, "have the same title").text.startswith("5 items")
    vectors = the(findings, "supplied vectors")
    assert vectors.text.startswith("19 of 20 supplied vectors are usable, 1 NaN or infinite; ")
    assert vectors.text.endswith("3 items have none, 5 share one vector")


def test_event_types_are_shown_with_what_they_count_as() -> None:
    events = "create table stg_events as select 1.0 as rating, unnest({}) as event_type"
    shop = inspected(FEEDBACK["shop"], events.format(["view", "view", " PURCHASE "]))
    (found,) = training_findings.kinds_of_events(shop)
    assert found.level == "ok"
    assert found.rows == (
        {"event_type": "view", "events": 2, "counts as": "an exposure"},
        {"event_type": " PURCHASE ", "events": 1, "counts as": "watched, positive"},
    )
    odd = inspected(FEEDBACK["shop"], events.format(["page_view", "Order Completed"]))
    (found,) = training_findings.kinds_of_events(odd)
    assert found.level == "warning"
    assert "none of them counts as watched" in found.text
    many = [f"page {n}" for n in range(2 * training_findings.MOST_TYPES)] * 2
    (found,) = training_findings.kinds_of_events(
        inspected(FEEDBACK["shop"], events.format([*many, "purchase"]))
    )
    assert found.level == "ok"
    assert len(found.rows) == training_findings.MOST_TYPES
    assert found.rows[-1]["event_type"] == "purchase"  # the rarest, and the only one that counts
    rated = inspected(FEEDBACK["ratings"], events.format(["rate", "review"]))
    assert training_findings.kinds_of_events(rated)[0].level == "ok"  # by the rating, not the type
    untyped = inspected(FEEDBACK["shop"], events.format("cast([null] as varchar[])"))
    assert not training_findings.kinds_of_events(untyped)


@pytest.mark.parametrize(
    ("ratings", "level"), [([1, 4, 5], "ok"), ([0, 50, 100], "warning"), ([-1, 1, 1], "warning")]
)
def test_ratings_of_another_scale_are_warned_about(ratings: list[int], level: str) -> None:
    table = f"create table stg_events as select null as event_type, unnest({ratings}) as rating"
    (found,) = training_findings.kinds_of_events(inspected(FEEDBACK["ratings"], table))
    assert found.level == level
    assert found.text.startswith(f"ratings from {ratings[0]:g} to {ratings[-1]:g}")


def test_ids_that_differ_in_little_are_shown_side_by_side() -> None:
    tables = """
    create schema raw;
    create table raw.raw_events as select unnest(['A1', ' a2', '007', 'x']) as item_id;
    create table stg_items as select unnest(['a1', 'a2', '7', 'b']) as item_id;
    """
    unknown = delivery_findings.ids(inspected(FEEDBACK["shop"], tables))[0]
    assert unknown.text.startswith("4 of 4 items of the log have no catalogue row")
    assert "3 of them differ from one of the catalogue in case, blanks, signs, " in unknown.text
    assert "' a2', 'a2'" in unknown.text


def test_letters_of_two_codings_are_named() -> None:
    tables = """
    create schema raw;
    create table raw.raw_events as
        select 'u' as user_id, unnest(['caf' || chr(233), 'x']) as item_id
        union all select 'u' || chr(769), 'cafe' || chr(769) union all select chr(250), 'x';
    create table stg_items as select unnest(['x', 'cafe' || chr(769)]) as item_id;
    """
    log = inspected(FEEDBACK["shop"], tables)
    unknown = delivery_findings.ids(log)[0]
    assert "accents or how they are coded, a prefix" in unknown.text
    assert r"('caf\xe9', 'cafe\u0301')" in unknown.text
    assert [f.text[:19] for f in value_findings.damaged_ids(log)] == [
        "1 ids in user_id ar",
        "1 ids in item_id ar",
    ]


@pytest.mark.parametrize(
    ("value", "setting"),
    [
        ("74,34", "events.decimal"),
        ("1.234,5", "events.decimal"),
        ("1\u00a0234,5", 'events.decimal: ","'),
        ("1 234.5", 'events.decimal: "."'),
        ("1'234", 'events.decimal: "."'),
        ("much", "events.columns.watch_seconds"),
        ("85%", "events.columns.watch_seconds: a column of plain numbers"),
        ("-5.0", "events.columns.watch_seconds: a column of lengths of time, or 0 where nothing"),
    ],
)
def test_numbers_with_a_comma_name_the_setting_that_reads_them(value: str, setting: str) -> None:
    reason = "watch_seconds is not a number"
    tables = f"""
    create schema raw;
    create table raw.raw_events as select 1 as x;
    create table rejected_events as select '{reason}' as reason, 'watch_seconds' as field,
        $${value}$$ as value, 'u' as user_id, 'i' as item_id, 'a.csv' as file, 1 as row_in_file,
        date '2026-06-01' as delivered_on;
    create table rejected_items as select 'duplicate of another row of the day' as reason,
        null as field, 'i1' as item_id, null as value, 'b.csv' as file;
    """
    _, found, items = delivery_findings.rejected(inspected(FEEDBACK["video"], tables))
    assert found.setting.startswith(setting)
    assert items.text == "1 rows of the catalogue: duplicate of another row of the day"
    assert items.rows == ({"item_id": "i1", "value": "None", "file": "b.csv"},)


def test_every_finding_names_a_line_of_the_yaml_file(findings: list[Finding]) -> None:
    known = ("feedback.", "events.", "items.", "first_day", "last_day", "stages.", "item_vectors.")
    assert all(f.setting.startswith(known) for f in findings)
    text = findings_as_text(findings)
    for finding in findings:
        assert finding.text in text
        assert finding.setting in text
    assert text.endswith(f"; {sum(f.level == 'warning' for f in findings)} warnings")


@pytest.mark.parametrize("number", [LONGEST_TABLE, LONGEST_TABLE + 1, 90])
def test_of_a_long_table_the_first_and_the_last_rows_are_printed(number: int) -> None:
    days = tuple({"day": day, "rows": 10 * day} for day in range(number))
    finding = Finding(topic="Days", level="ok", text="days", setting="first_day", rows=days)
    lines = findings_as_text([finding]).splitlines()
    shown = [line.strip() for line in lines if " rows " in line]
    assert len(shown) == LONGEST_TABLE
    assert shown[0] == "day 0, rows 0"
    assert shown[-1] == f"day {number - 1}, rows {10 * (number - 1)}"
    left_out = [line.split()[1] for line in lines if "more, which" in line]
    assert left_out == ([str(number - LONGEST_TABLE)] if number > LONGEST_TABLE else [])


def test_what_would_stop_a_nightly_run_is_marked(tmp_path: Path) -> None:
    rows = ["a,i1,2026-06-01 10:00:00,1,0", "a,i2,2026-06-02 10:00:00,much,0"]
    write_log(tmp_path, rows)
    findings = look(tmp_path, opened(tmp_path))
    stopping = {f.text for f in findings if f.level == "error"}
    assert the(findings, "0 users, 0 cases").text.endswith("has no metrics and promotes nothing")
    for words in (
        "1 of 2 rows are rejected (50.00%",
        "1 sessions, 0 of them good",
        "0 good sessions on 1 days with sessions",
        "is_positive: 0 of 1 events",
    ):
        assert any(words in text for text in stopping), words


@pytest.mark.parametrize("has_catalogue", [True, False])
def test_one_landing_of_the_catalogue_equals_one_a_day(tmp_path: Path, has_catalogue: bool) -> None:
    log = [f"u,i{k},2026-06-0{1 + k % 4} 10:00:00,40,0" for k in range(12)]
    write_log(tmp_path, [*log, *log[:3]])
    published = [f"i{k},{'' if k == 1 else f'2026-0{5 + k % 2}-0{1 + k % 4}'}" for k in range(12)]
    (tmp_path / "new.csv").write_text("item_id,published_at\n" + "\n".join(published))
    sections = {"items": {"path": "new.csv"}} if has_catalogue else {}
    source = opened(tmp_path, **sections)
    days = every_day(date(2026, 6, 1), date(2026, 6, 4))
    found = []
    for name in ("once", "daily"):
        warehouse = Warehouse(path=str(tmp_path / f"{name}.duckdb"))
        for delivery in deliveries(source, "raw_events", schema.EVENTS, days):
            warehouse.land("raw_events", delivery)
        if name == "once":
            land_catalogue(warehouse, source, days)
        else:
            for delivery in deliveries(source, "raw_items", schema.ITEMS, days):
                warehouse.land("raw_items", delivery)
        with warehouse.connect() as connection:
            rows = connection.execute(
                "select item_id, published_at, delivered_on from raw.raw_items order by all"
            ).fetchall()
        found.append(rows)
    assert found[0] == found[1]
    assert len({day for *_, day in found[0]}) >= 3


def test_items_that_leave_the_daily_catalogue_are_shown(tmp_path: Path) -> None:
    write_log(tmp_path, REGULAR)
    for day, number in ((1, 22), (2, 22), (3, 20), (4, 12)):
        rows = "".join(f"i{k},title {k}\n" for k in range(number))
        (tmp_path / f"items-2026-06-0{day}.csv").write_text(f"item_id,title\n{rows}")
    found = look(tmp_path, opened(tmp_path, items={"path": "items-{date}.csv"}))
    gone = the(found, "are withdrawn")
    assert gone.text.startswith("10 of 22 items are withdrawn by 2026-06-04, e.g. 'i12'")
    assert f"at most {8 / 20:.1%} in one delivery" in gone.text
    assert gone.level == "warning"
    assert gone.setting.startswith("items.delivery: partial")
    assert [row["withdrawn"] for row in gone.rows] == [2, 8]
    changes = {"path": "items-{date}.csv", "delivery": "partial"}
    kept = look(tmp_path, opened(tmp_path, items=changes))
    assert not [f for f in kept if "withdrawn" in f.text]


@pytest.mark.parametrize(
    ("users", "said", "setting"),
    [
        (1, "of 1 users with sessions to train on", "events.path: a log of two users or more"),
        (2, "of 2 users with sessions to train on", "stages.reward.seed: 0 (now 1)"),
        (8, None, None),
    ],
)
def test_users_for_the_reward_model_and_the_evaluator(
    users: int, said: str | None, setting: str | None
) -> None:
    days = "date '2026-06-01' + cast(d as integer) as session_date, true as is_good"
    tables = f"create table sessions as select 'u' || u as user_id, {days} from range(4) as t(d), "
    log = inspected(FEEDBACK["video"], f"{tables} range({users}) as s(u)")
    found = training_findings.users_of_two_models(log)
    assert [f.level for f in found] == ([] if said is None else ["error"])
    assert said is None or said in found[0].text
    assert setting is None or found[0].setting.startswith(setting)


@pytest.mark.parametrize(
    ("rows", "said"),
    [("range(0)", "has 0 rows up to"), ("range(3)", "has 3 rows up to .*, and none of them")],
)
def test_a_catalogue_without_an_item_is_named(rows: str, said: str) -> None:
    tables = f"""
    create schema raw;
    create table raw.raw_events as select 'a1' as item_id;
    create table raw.raw_items as select null as item_id from {rows};
    create table stg_items as select null as title, null as category, null as author_id,
        'x' as item_id, date '2026-06-01' as first_seen, date '2026-06-01' as valid_from limit 0;
    """
    log = inspected(FEEDBACK["video"], tables)
    (found,) = delivery_findings.ids(log)
    assert re.search(f"the catalogue {said}", found.text)
    assert (found.level, found.setting[:10]) == ("error", "items.path")
    (tokens,) = training_findings.tokenizer(log)
    assert "no item is known before 2026-06-04" in tokens.text
    assert "codebook_size" not in tokens.setting


@pytest.mark.parametrize(("size", "level"), [(0, "ok"), (16, "ok"), (32, "error")])
def test_a_catalogue_smaller_than_the_codebook_is_named(size: int, level: str) -> None:
    tables = """
    create table stg_items as select 'i' || i as item_id, 't' || i as title, null as category,
        null as author_id, date '2026-06-01' as first_seen, date '2026-06-01' as valid_from
    from range(24) as t(i);
    """
    log = inspected(FEEDBACK["video"], tables)
    stages = replace(log.stages, tokenizer=TokenizerConfig(codebook_size=size))
    (codes, *_) = training_findings.tokenizer(replace(log, stages=stages))
    assert codes.level == level
    if size == 0:
        assert codes.text.endswith(
            "24 items before 2026-06-04, 4 codes a level, which follow from the number of items"
        )
    if level == "error":
        assert codes.setting == "stages.tokenizer.codebook_size: 0 (now 32)"


def test_of_a_large_log_the_sessions_of_some_users_are_cut(
    findings: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_warehouse, "SAMPLED_EVENTS", 1_300)
    home = delivered.temporary_home()
    write_log(home, ROWS)
    sampled = look(home, opened(home, items={"path": "items.csv"}))
    # what is read and rejected, and the accounts, are those of all rows
    for words in (
        "rows of events",
        "rows are rejected",
        "watch_seconds is not",
        "moves popularity",
    ):
        assert the(sampled, words).text == the(findings, words).text
    # md5 puts a user in or out with all sessions: sessions are a part of those of all users
    share = 1_300 / len(ROWS)
    users = ["bot", "t", *(f"u{n}" for n in range(30))]
    limit = f"{int(share * 65536):04x}"
    inside = [u for u in users if hashlib.md5(u.encode()).hexdigest()[:4] < limit]
    assert 5 < len(inside) < 27
    sessions = sum(3 if user.startswith("u") else 1 for user in inside)
    counts = the(sampled, "of them good").text
    assert counts.startswith(f"about {round(sessions / share):,} sessions")
    assert f"from {share:.1%} of users" in counts


def test_logs_of_up_to_two_million_events_are_inspected_whole() -> None:
    assert temporary_warehouse.user_sample(2_000_000) == 1
    assert temporary_warehouse.user_sample(10_000_000) == pytest.approx(0.1)


def test_values_that_mean_something_else_are_warned_about() -> None:
    tables = """
    create schema raw;
    create table stg_events as select unnest([1, -1]) as quantity;
    create table int_events_sessionized as
        select 30000.0 as watch_seconds, 30.0 as duration_seconds;
    create table raw.raw_events as select 'caf' || chr(65533) as user_id, '1.23457E+12' as item_id;
    create table raw.raw_items as select '{"feature_price": "9 EUR", "published_at": null}'
        as unreadable;
    """
    log = inspected(FEEDBACK["video"], tables)
    (watch,) = value_findings.watch_times(log)
    assert watch.level == "warning"
    assert "scale: 0.001" in watch.setting
    (returns,) = value_findings.quantities(log)
    assert returns.text.startswith("1 of 2 quantities")
    lost, rounded = value_findings.damaged_ids(log)
    assert lost.setting.startswith("events.encoding: latin-1")
    assert "1 events have a rounded item_id" in rounded.text
    (price,) = value_findings.features(log)
    assert "1 items have a price that is no number, e.g. '9 EUR'" in price.text


def test_watch_times_in_the_unit_of_the_durations_are_fine() -> None:
    tables = """
    create table int_events_sessionized as
        select unnest([3.0, 29.0]) as watch_seconds, 30.0 as duration_seconds;
    """
    (watch,) = value_findings.watch_times(inspected(FEEDBACK["video"], tables))
    assert watch.level == "ok"


def test_a_file_that_was_delivered_twice_is_named(tmp_path: Path) -> None:
    write_log(tmp_path, REGULAR)
    (tmp_path / "log" / "b.csv").write_text((tmp_path / "log" / "a.csv").read_text())
    (tmp_path / "new.csv").write_text("item_id,published_at\ni1,2026-09-01\ni2,2026-05-01\n")
    items = {"path": "new.csv", "unknown_items": "add"}
    found = look(tmp_path, opened(tmp_path, items=items))
    twice = the(found, "duplicate of another row")
    known = [row for row in REGULAR if ",i1," not in row]  # it is published after the log
    assert twice.text.startswith(f"{len(known)} rows")
    assert "a.csv" in twice.text
    assert "b.csv" in twice.text
    assert set(twice.rows[0]) == {"user_id", "item_id", "file", "row"}
    later = the(found, "are published after 2026-06-04")
    assert later.text.startswith("1 of ")
    assert later.setting.startswith("items.columns.published_at")


def test_ids_that_differ_in_blanks_only_are_named() -> None:
    tables = """
    create schema raw;
    create table raw.raw_events as
        select unnest(['u1', 'u1 ', ' u2', null]) as user_id, unnest(['a b', 'ab']) as item_id;
    """
    found = value_findings.damaged_ids(inspected(FEEDBACK["shop"], tables))
    assert [f.text for f in found] == [
        "1 ids in user_id are another one but for blanks around them or how accents are coded, "
        "e.g. 'u1 ': they count as different"
    ]
