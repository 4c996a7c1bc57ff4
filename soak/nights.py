"""The nightly runs: deliveries, operator actions, and the assertions after each run."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from subprocess import Popen

import duckdb
import pyarrow.parquet as pq

from onerec.disk import GIB
from soak.commands import Commands, kill, size_of, wait_until
from soak.deliveries import ONE_DAY, Deliveries
from soak.replay import (
    Ledger,
    ServedFiles,
    check_champion,
    check_ids,
    check_served,
    expect,
    replay_challenger,
    replay_champion,
)
from soak.schedule import FIRST_LOG_DAY, FIRST_NIGHT, SCHEDULE, day_of
from soak.small_disk import filled, small_disk

WINDOW_DAYS = 5
KEPT_NIGHTS = 7
KEPT_DAYS = 14
PRUNE_EVERY = 7
MOST_GROWTH = 1.25
"""Limit of the state's size after a prune, relative to what as many nightly runs took at first;
above 1 because the catalogue grows."""
DISK_ROOM = 2**29
"""Bytes of free space; a nightly run takes about 10 MB of artifacts, and more while it runs."""


@dataclass
class Soak:
    """The soak test.

    Attributes:
        commands: Operator commands.
        deliveries: Delivered files.
        ledger: Expected state after the nightly runs so far.
        schedule: Incident by number of the nightly run.
    """

    commands: Commands
    deliveries: Deliveries
    ledger: Ledger
    schedule: dict[int, str]

    @classmethod
    def at(cls, home: Path, schedule: dict[int, str] = SCHEDULE) -> "Soak":
        """The soak test of a home, resumed after its last nightly run."""
        commands = Commands(home)
        commands.prepare()
        deliveries = Deliveries.into(commands.deliveries)
        return cls(commands, deliveries, Ledger.load(home / "ledger.json"), schedule)

    def night(self, number: int) -> dict[str, object]:
        """Make a nightly run; returns its row of the table.

        Raises:
            AssertionError: An expectation is not met; the nightly run can be repeated.
        """
        incident, day, began = self.schedule.get(number, ""), day_of(number), time.monotonic()
        self._deliver(number, incident, day)
        HANDLERS.get(incident, plain)(self, day)
        if incident != "missed":
            self._check(day, opens=opens_version(day, incident))
        pruned = number % PRUNE_EVERY == 0 and self._prune(number)
        self.ledger.save(self.commands.home / "ledger.json")
        served = ServedFiles.read(self.commands.root / "serving")
        return {
            "night": number,
            "day": str(day),
            "what happened": (incident or "plain") + (", pruned" if pruned else ""),
            "served": described(served),
            "minutes": round((time.monotonic() - began) / 60, 2),
            "GiB": round(size_of(self.commands.root) / GIB, 4),
        }

    def _deliver(self, number: int, incident: str, day: date) -> None:
        if number == 1:
            for offset in range((FIRST_NIGHT - FIRST_LOG_DAY).days):
                self._deliver_day(FIRST_LOG_DAY + offset * ONE_DAY, "")
        if incident == "corrected day":
            self._deliver_day(day - ONE_DAY, "")
        self._deliver_day(day, incident)

    def _deliver_day(self, day: date, incident: str) -> None:
        shares = {"empty day": 0.0, "8 % day": 0.08, "rows held back": 0.85, "wrong file": 0.5}
        late = 0.15 if incident == "late rows" else 0.0
        share, erased = shares.get(incident, 1.0), self.ledger.erased
        self.deliveries.deliver(day, share=share, late=late, without=erased)
        self.deliveries.deliver_catalogue(day, self._withdrawn_from)

    @property
    def _withdrawn_from(self) -> date:
        """The first day whose delivery lacks two thirds of the catalogue."""
        return day_of(min(night for night, what in self.schedule.items() if "withdrawn" in what))

    def _check(self, day: date, *, opens: bool) -> None:
        store = self.commands.store
        if str(day) in store.partitions("champion") and str(day) not in self.ledger.champions:
            replay_champion(self.ledger, store, day)
        if str(day) in self.ledger.champions:
            check_champion(self.ledger, store, day)
            check_ids(self.ledger, store, self.deliveries, day, opens=opens)
        served = ServedFiles.read(self.commands.root / "serving")
        check_served(self.ledger, store, self.deliveries, served, day, WINDOW_DAYS)

    def _prune(self, number: int) -> bool:
        """Prune, and compare the size of the state with that after the first nightly runs."""
        options = ["--keep-nights", str(KEPT_NIGHTS), "--keep-champions", str(KEPT_NIGHTS)]
        options += ["--keep-days", str(KEPT_DAYS)]
        before = size_of(self.commands.root)
        printed = self.commands.run("prune", *options)
        expect("Nothing was removed" in printed, printed)
        self.commands.run("prune", *options, "--yes")
        after, file = size_of(self.commands.root), self.commands.home / "sizes.json"
        sizes = json.loads(file.read_text()) if file.exists() else {}
        sizes[str(number)] = [before, after]
        file.write_text(json.dumps(sizes))
        # runs of days that a kept nightly run learned from are kept as well
        a_night = sizes[min(sizes, key=int)][0] / KEPT_NIGHTS
        limit = MOST_GROWTH * a_night * (KEPT_NIGHTS + WINDOW_DAYS)
        expect(after <= limit, f"night {number}: {after:,} bytes after prune, more than {limit:,}")
        return True


def opens_version(day: date, incident: str) -> bool:
    """Whether a run opens a tokenizer version: every seventh, unless refused."""
    return (day - FIRST_NIGHT).days % 7 == 0 and incident != "refused Sunday"


def described(served: ServedFiles) -> str:
    """Served day and model in words."""
    model = str(served.facts["model_version"])
    name = model if "_" in model or model.isalpha() else f"model {model[:8]}"
    day = served.facts["day"]
    return f"{day}: {name}" + (", degraded" if served.facts["degraded"] else "")


def plain(soak: Soak, day: date) -> None:
    """A nightly run without an incident."""
    soak.commands.run("rerun", str(day))


def missed(soak: Soak, day: date) -> None:
    """The run is not started: the previous day stays served."""
    served = ServedFiles.read(soak.commands.root / "serving")
    expect(served.facts["day"] < str(day), f"{day} is served although nobody ran it")


def catch_up(soak: Soak, day: date) -> None:
    """The missed nightly runs and this one, oldest first."""
    first = day
    while str(first - ONE_DAY) not in soak.commands.store.partitions("recommendations"):
        first -= ONE_DAY
    soak.commands.run("backfill", str(first), str(day))
    while first < day:
        replay_champion(soak.ledger, soak.commands.store, first)
        check_champion(soak.ledger, soak.commands.store, first)
        opens = opens_version(first, "")
        check_ids(soak.ledger, soak.commands.store, soak.deliveries, first, opens=opens)
        first += ONE_DAY


def promote_and_pin(soak: Soak, day: date) -> None:
    """The challenger is promoted by hand and pinned."""
    plain(soak, day)
    replay_champion(soak.ledger, soak.commands.store, day)
    check_champion(soak.ledger, soak.commands.store, day)
    soak.commands.run("promote", "--reason", "soak")
    soak.commands.run("pin", "--reason", "soak")
    model = replay_challenger(soak.commands.store, day)
    soak.ledger.champions[str(day)] = model
    soak.ledger.pinned = model


def broken_volume(soak: Soak, day: date) -> None:
    """The volume check stops the nightly run, and the last champion serves."""
    printed = soak.commands.run("rerun", str(day), expect=1)
    expect_text("volume_is_usual", printed)
    expect_degraded(soak, day)


def failed(soak: Soak, day: date) -> None:
    """A blocking check stops the nightly run, and the last champion serves today's catalogue."""
    printed = soak.commands.run("rerun", str(day), config="fails a check", expect=1)
    expect_text("min_positive_share", printed)
    expect_degraded(soak, day)


def refused_refit(soak: Soak, day: date) -> None:
    """The refit is refused, and the nightly run uses the current tokenizer version."""
    soak.commands.run("rerun", str(day), config="refuses the refit")
    codebook = soak.commands.store.latest("codebook", str(day))
    expect(not codebook.manifest["metadata"]["accepted"], f"{day}: the refit was accepted")


def killed(soak: Soak, day: date) -> None:
    """`kill -9` in the pretraining, then `resume`."""
    scratch = soak.commands.root / "artifacts" / ".scratch" / "pretrained_checkpoint" / str(day)
    process = soak.commands.start("rerun", str(day))
    wait_until(process, lambda: any(scratch.rglob("*.ckpt")))
    kill(process)
    expect(str(day) not in soak.commands.store.partitions("pretrained_checkpoint"), "too late")
    soak.commands.run("resume")


def full_disk(soak: Soak, day: date) -> None:
    """The disk becomes full in the middle of the run; then space is freed, and `resume`.

    Until then nothing can be written for this day, so the previous day stays served.
    """
    root, store = soak.commands.root, soak.commands.store
    little = {"ONEREC_MIN_FREE_GIB": "0.01"}
    with small_disk(root, DISK_ROOM):
        process = soak.commands.start("rerun", str(day), more=little)
        wait_until(process, lambda: str(day) in store.partitions("session_dataset"))
        with filled(root):
            printed = soak.commands.ended(process, 1)
            served = ServedFiles.read(root / "serving")
        expect_text("GiB free", printed)
        expect(served.facts["day"] == str(day - ONE_DAY), f"{served.facts['day']} is served")
        soak.commands.run("resume", more=little)


def corrupt_checkpoint(soak: Soak, day: date) -> None:
    """Yesterday's checkpoint is corrupted; the run stops, and the remedy that it prints works."""
    yesterday = str(day - ONE_DAY)
    checkpoint = soak.commands.store.latest("pretrained_checkpoint", yesterday)
    flip_bytes(checkpoint.path / "model.safetensors", 40)
    printed = soak.commands.run("rerun", str(day), expect=1)
    expect_text("pretrained_checkpoint", printed)
    expect_degraded(soak, day)
    select = ["--select", "pretrained_checkpoint", "--partition", yesterday]
    module = ["-m", "onerec_dagster.definitions"]
    soak.commands.run("asset", "materialize", *module, *select)
    mended = soak.commands.store.latest("pretrained_checkpoint", yesterday).verify()
    expect(mended.version == checkpoint.version, "the repair made another version")
    soak.commands.run("resume")


def unpin_and_rollback(soak: Soak, day: date) -> None:
    """The pin is removed; then the operator rolls back to an earlier champion."""
    soak.commands.run("unpin", "--reason", "soak")
    soak.ledger.pinned = None
    plain(soak, day)
    replay_champion(soak.ledger, soak.commands.store, day)
    check_champion(soak.ledger, soak.commands.store, day)
    models = soak.ledger.champions
    there = [d for d in soak.commands.store.partitions("champion") if d < str(day)]
    others = [d for d in there if models[d] != models[str(day)]]
    if others:
        soak.commands.run("rollback", "--reason", "soak")
        models[str(day)] = models[others[-1]]


def erasure(soak: Soak, day: date) -> None:
    """Two served users are forgotten: afterwards no readable table contains them."""
    plain(soak, day)
    users = sorted(ServedFiles.read(soak.commands.root / "serving").lists)[:2]
    soak.ledger.erased = [*soak.ledger.erased, *users]
    soak.deliveries.take_out(users)
    soak.commands.run("forget", *users)
    for file in soak.commands.root.rglob("*.parquet"):
        if "user_id" in pq.read_schema(file).names:
            held = set(pq.read_table(file, columns=["user_id"])["user_id"].to_pylist())
            expect(not held & set(users), f"{file} holds erased users")
    with duckdb.connect(str(soak.commands.root / "warehouse.duckdb"), read_only=True) as warehouse:
        rows = warehouse.execute(
            "select count(*) from raw.raw_events where user_id in (select unnest($users))",
            {"users": users},
        ).fetchall()
    expect(rows == [(0,)], f"the warehouse holds {rows} rows of erased users")


def two_operators(soak: Soak, day: date) -> None:
    """Two operators start the same nightly run at the same time."""
    both = [soak.commands.start("rerun", str(day)) for _ in range(2)]
    texts: list[str] = []

    def read(process: Popen) -> None:
        texts.append(soak.commands.ended(process))

    readers = [threading.Thread(target=read, args=(process,)) for process in both]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    expect(len(texts) == len(both), "one of the two nightly runs failed")


def expect_text(wanted: str, printed: str) -> None:
    """Assert that a command's output contains a text."""
    expect(wanted in printed, f"{wanted!r} is not in what was printed:\n{printed[-4000:]}")


def expect_degraded(soak: Soak, day: date) -> None:
    """Assert that the day is served by the last champion, with a reason."""
    served = ServedFiles.read(soak.commands.root / "serving")
    expect(served.facts["day"] == str(day), f"nothing serves {day}")
    expect(bool(served.facts["degraded"]), f"{day} is not marked degraded")
    store, ledger = soak.commands.store, soak.ledger
    check_served(ledger, store, soak.deliveries, served, day, WINDOW_DAYS)


def flip_bytes(file: Path, number: int) -> None:
    """Corrupt bytes in the middle of a file."""
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + number] = bytes(b ^ 0xFF for b in data[middle : middle + number])
    file.write_bytes(data)


HANDLERS: dict[str, Callable[[Soak, date], None]] = {
    "promote and pin": promote_and_pin,
    "missed": missed,
    "catch-up": catch_up,
    "8 % day": broken_volume,
    "failed night, withdrawn catalogue": failed,
    "refused Sunday": refused_refit,
    "kill in training": killed,
    "disk full": full_disk,
    "corrupt checkpoint": corrupt_checkpoint,
    "unpin and rollback": unpin_and_rollback,
    "erasure": erasure,
    "two operators": two_operators,
}
"""Incidents that are not listed differ from a plain nightly run only in their deliveries."""
