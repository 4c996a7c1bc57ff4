"""Wrong YAML files of one's own data: each is refused in one line, before anything runs."""

import re
from pathlib import Path

import pytest

from onerec.config import SettingError
from resources.settings import load_settings

LOG = "user,item,at,secs,stars\n" + "".join(
    f"u{n % 5},i{n % 7},2026-06-0{n % 8 + 1} 10:00:{n % 60:02},{n % 50},{n % 5}\n"
    for n in range(200)
)
BASE = """events:
  path: log.csv
  columns: {user_id: user, item_id: item, event_time: at, watch_seconds: secs}
items: {path: items.csv, columns: {item_id: item, duration_seconds: dur}}
"""
BOMB = "[&a0 [x, x, x, x, x, x, x, x], " + ", ".join(
    f"&a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)
)


def events(line: str) -> str:
    return BASE.replace("  path: log.csv\n", f"  path: log.csv\n  {line}\n")


def column(name: str, value: str) -> str:
    before = {"user_id": "user", "event_time": "at", "watch_seconds": "secs"}[name]
    return BASE.replace(f"{name}: {before}", f"{name}: {value}")


def items(line: str) -> str:
    return BASE.replace("items: {", f"items: {{{line}, ")


def users(line: str) -> str:
    path = "" if "path:" in line else ", path: log.csv"
    ids = "" if "columns:" in line else ", columns: {user_id: user}"
    return f"{BASE}users: {{{line}{path}{ids}}}\n"


def feedback(text: str) -> str:
    return f"{BASE}feedback: {text}\n"


POISONED = [
    *(
        (column("watch_seconds", f"{{column: secs, scale: {scale}}}"), "watch_seconds.scale=")
        for scale in (".nan", ".inf", "-.inf", "0", "-1", "1e400", "'2'", "true", "null", "[1]")
    ),
    (column("user_id", "{column: user, scale: 3}"), "user_id.scale=3"),
    (column("user_id", "{column: user, date: at}"), "user_id.date='at'"),
    (column("event_time", "{column: at, date: nope}"), "no column 'nope'"),
    (column("event_time", "''"), "event_time.column='': must not be empty"),
    (column("event_time", "3"), "event_time=3: must map names"),
    (column("event_time", "\"a\\0t\""), "no column 'a\\\\x00t'"),
    (column("event_time", "x" * 5000), "no column 'xxx"),
    (column("watch_seconds", "user"), "user_id and watch_seconds are both column 'user'"),
    (BASE.replace("log.csv", "''"), "events.path='': must not be empty"),
    (BASE.replace("log.csv", "x" * 5000), "events.path='xxx"),
    (BASE.replace("log.csv", '"a\\nb"'), "events.path='a\\nb': no Parquet, CSV or JSON-lines file"),
    (BASE.replace("log.csv", '"\\ud800.csv"'), "events.path="),
    (BASE.replace("log.csv", "'{date:%Y-%m}.csv'"), ": events.path='{date:%Y-%m}.csv': its {date}"),
    (BASE.replace("log.csv", "'{date:%Y-%m}.csv'"), "name them all by a glob, *.csv"),
    (events("quote: ','"), "quote=',': use another character"),
    (events("delimiter: '\"'"), "use another character"),
    (events("timestamp_format: ''"), "events.timestamp_format.0='': must not be empty"),
    (events("timestamp_format: '%Q'"), "events.timestamp_format='%Q': is none that strptime"),
    (items("timestamp_format: [iso, '%Q']"), "items.timestamp_format='%Q': is none that"),
    (events("encoding: klingon"), "events.encoding='klingon': is not known"),
    (events("encoding: base64"), "events.encoding='base64': is not known"),
    (events("null_values: NA"), "events.null_values='NA': use a list"),
    (events("time_zone: localtime"), "time_zone='localtime': is no time zone"),
    (events("time_zone: ../../etc/passwd"), "is no time zone"),
    (items("features: {title: cat}"), "title is a column of the contract"),
    (items("features: {" + ", ".join(f"f{n}: c" for n in range(65)) + "}"), "at most 64"),
    (BASE + "item_vectors: {path: nope.npz}\n", "item_vectors.path="),
    (users("features: []"), "users.features=[]: name at least one"),
    (users("columns: {user_id: user}"), "users.features=None: is missing; add it"),
    (users("features: [nope]"), "users.features.nope='nope': "),
    (users("features: [Age]"), "users.features.Age='Age': name it in a-z, 0-9 and _"),
    (users("features: {age: {column: secs, numeric: true}}"), "age.numeric=True: users"),
    (users("features: [user_id]"), "user_id='user_id': names the user: leave it out"),
    (users("features: [user], path: 'log_{date}.csv'"), "path='log_{date}.csv': is read whole"),
    *(
        (f"{BASE}{name}: {{path: 'x{{date}}.csv'}}\n", f"{name}.path='x{{date}}.csv': is read")
        for name in ("item_vectors", "prior_history")
    ),
    (users("features: [user], columns: {user_id: nobody}"), "users.columns.user_id='nobody': "),
    *((f"{BASE}{name}_day: {day}\n", f"{name}_day=") for name in ("first", "last") for day in (
        "0001-01-01", "9999-12-31", "1970-01-01", "2036-01-01", ".nan", "yes", "2026-06-99"[:7],
    )),
    (BASE + "last_day: 2026-06-31\n", "last_day='2026-06-31': write a day that the calendar has"),
    (BASE + "last_day: 20260608\n", "last_day=20260608: write 2026-06-08"),
    (BASE + "last_day: 2026-06-08 12:00:00\n", "last_day='2026-06-08 12:00:00': write 2026-06-08"),
    (BASE + "last_day: 06/08/2026\n", "last_day='06/08/2026': write a day that the calendar has"),
    (BASE + "last_day: 2026-05-01\n", "last_day='2026-05-01': the log begins on 2026-06-01"),
    (BASE + "first_day: 2026-07-01\n", "first_day='2026-07-01': the log ends on 2026-06-08"),
    *((f"{BASE}open_ended: {v}\n", "open_ended=") for v in ("1", "'yes'", "maybe", "null")),
    (BASE + "preset: gigantic\n", "preset='gigantic': no such key"),
    (feedback("{exposure: []}"), "feedback.exposure=(): is empty"),
    (feedback("{watched: []}"), "feedback.watched=(): is empty"),
    (feedback("{watched: {watch_share_at_least: -1}}"), "watch_share_at_least=-1"),
    (feedback("{watched: {watch_seconds_at_least: 1e300}}"), "watch_seconds_at_least=1e+300"),
    (feedback("{watched: {watch_seconds_at_least: true}}"), "watch_seconds_at_least=True"),
    (feedback("{watched: {event_type: []}}"), "event_type="),
    (feedback("{watched: {event_type: \"x' or 1=1\"}}"), "event_type"),
    (feedback("{watched: {event_type: buy}}"), "the events have no event_type"),
    (feedback("{kind: ratings}"), "has no rating: set events.columns.rating"),
    (feedback("{watched: {rating_at_least: 5, rating_below: 3}}"), "exclude all"),
    (feedback("{positive: {every_event: true}, negative: {every_event: true}}"), "name it once"),
    (feedback("{signals: {a: {when: {every_event: true}, weight: 0}}}"), "every weight is 0"),
    (BASE + "first_day: !!timestamp 99999-01-01\n", "is not valid YAML"),
    (BASE + "stages: {model: {d_model: 0100}}\n", "d_model='0100': use a whole number"),
    (BASE + "stages: {model: {d_model: 1:04}}\n", "d_model='1:04': use a whole number"),
    (f"{BASE}bomb: {BOMB}]\n", "bomb="),
    (events(f"null_values: {BOMB}]"), "null_values.0="),
    (BASE + "stages: &s {model: *s}\n", "stages.model.model="),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), POISONED)
@pytest.mark.timeout(20)
def test_it_is_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "items.csv").write_text("item,dur\n" + "".join(f"i{n},60\n" for n in range(7)))
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    environ = {"ONEREC_HOME": str(tmp_path), "ONEREC_CONFIG": str(tmp_path / "my.yaml")}
    with pytest.raises(SettingError, match=re.escape(expected)) as raised:
        _ = load_settings(environ).source.first_day
    said = str(raised.value)
    assert "\n" not in said
    assert len(said) < 2000


def test_what_they_are_made_from_is_right(tmp_path: Path) -> None:
    test_file = tmp_path / "my.yaml"
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "items.csv").write_text("item,dur\ni1,60\n")
    test_file.write_text(BASE + "first_day: 2026-06-01\nopen_ended: yes\n")
    settings = load_settings({"ONEREC_HOME": str(tmp_path), "ONEREC_CONFIG": str(test_file)})
    assert str(settings.source.first_day) == "2026-06-01"
    assert settings.feedback.kind == "video"
