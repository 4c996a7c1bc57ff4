"""Expected results of a nightly run, computed from deliveries and metrics only.

The promotion rule is implemented here a second time, as plain comparisons. The expected champion is
replayed from run to run and does not depend on the champions that the runs stored.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from onerec.artifacts import Artifact, ArtifactStore, read_json
from onerec.evaluation.metric_table import MetricTable
from onerec.tokenizer.semantic_ids import load_semantic_ids
from soak.deliveries import Deliveries

RECALL, REWARD = "recall@10", "evaluator_reward"
PRETRAINED, ALIGNED, CHAMPION = "pretrained", "dpo", "champion"
CHECKPOINTS = {PRETRAINED: "pretrained_checkpoint", ALIGNED: "dpo_checkpoint"}
SIMPLE = ("popularity", "popularity_recent", "itemknn", "own_repeats")
Model = dict[str, str]


@dataclass
class Ledger:
    """Expected state after the previous nightly runs.

    Attributes:
        champions: Expected champion by day.
        pinned: The pinned model.
        tokenizer_version: The current one.
        ids: Semantic ID by item in that version.
        erased: Erased users, who must not be served.
    """

    champions: dict[str, Model] = field(default_factory=dict)
    pinned: Model | None = None
    tokenizer_version: str = ""
    ids: dict[str, list[int]] = field(default_factory=dict)
    erased: list[str] = field(default_factory=list)

    def save(self, file: Path) -> None:
        """Write it."""
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, file: Path) -> "Ledger":
        """Read a ledger; empty where there is no file."""
        return cls(**json.loads(file.read_text())) if file.exists() else cls()

    def incumbent(self, day: date) -> Model | None:
        """The champion of the last earlier day, if it is a model."""
        before = [d for d in sorted(self.champions) if d < day.isoformat()]
        last = self.champions[before[-1]] if before else None
        return None if last is None or "system" in last else last


def expect(condition: bool, what: str) -> None:
    """Raise `AssertionError` with a message unless the condition holds."""
    if not condition:
        raise AssertionError(what)


def replay_champion(ledger: Ledger, store: ArtifactStore, day: date) -> Model:
    """Apply the promotion rule to a day's metrics and record the champion in the ledger."""
    measured = store.latest("offline_metrics", day.isoformat())
    metrics, config = MetricTable.load(measured.path), measured.manifest["config"]
    incumbent = ledger.incumbent(day)
    challenger = challenger_of(metrics, config["aligned_recall_tolerance"])
    left_out = {"own_repeats"} if config["decoding"]["filter_seen"] else set()
    measured_simple = [s for s in metrics.systems(RECALL) if s in SIMPLE and s not in left_out]
    simple = max(measured_simple, key=lambda s: metrics.find(s, RECALL).mean, default="popularity")
    model = {**named(store.latest("baselines", day.isoformat())), "system": simple}
    if not metrics.systems(RECALL):
        model = incumbent or model
    elif challenger_passes(metrics, challenger, simple, config["recall_tolerance"], incumbent):
        model = named(store.latest(CHECKPOINTS[challenger], day.isoformat()))
    elif incumbent and metrics.find(CHAMPION, RECALL, reference=simple).low > 0:
        model = incumbent
    model = ledger.pinned or model
    ledger.champions[day.isoformat()] = model
    return model


def replay_challenger(store: ArtifactStore, day: date) -> Model:
    """The nightly run's own model that is its challenger."""
    measured = store.latest("offline_metrics", day.isoformat())
    tolerance = measured.manifest["config"]["aligned_recall_tolerance"]
    system = challenger_of(MetricTable.load(measured.path), tolerance)
    return named(store.latest(CHECKPOINTS[system], day.isoformat()))


def challenger_of(metrics: MetricTable, tolerance: float) -> str:
    """The system that is the challenger: the aligned model, unless it loses Recall@10."""
    lost = metrics.find(ALIGNED, RECALL, reference=PRETRAINED)
    tolerated = tolerance * metrics.find(PRETRAINED, RECALL).mean
    return PRETRAINED if lost.high < -tolerated else ALIGNED


def challenger_passes(
    metrics: MetricTable, challenger: str, simple: str, tolerance: float, incumbent: Model | None
) -> bool:
    """Whether a challenger passes the gates of the promotion rule."""
    above = metrics.find(challenger, RECALL, reference=simple)
    numbers = [*above, metrics.find(challenger, RECALL).mean]
    passes = all(
        (
            metrics.find(challenger, "legal_share").mean == 1,
            metrics.find(challenger, "repeat_free_share").mean == 1,
            above.low > 0,
        )
    )
    if incumbent is not None:
        recall = metrics.find(challenger, RECALL, reference=CHAMPION)
        reward = metrics.find(challenger, REWARD, reference=CHAMPION)
        numbers += [*recall, *reward, metrics.find(CHAMPION, RECALL).mean]
        passes &= recall.mean >= -tolerance * metrics.find(CHAMPION, RECALL).mean
        passes &= not recall.high < 0 or reward.low > 0
        passes &= not reward.high < 0 or recall.low > 0
    return bool(passes) and all(map(math.isfinite, numbers))


def named(artifact: Artifact) -> Model:
    """The model's name as in `champion.json`."""
    return {
        "asset": artifact.asset,
        "partition": artifact.partition,
        "version": artifact.version,
    }


def check_champion(ledger: Ledger, store: ArtifactStore, day: date) -> None:
    """Assert that the stored champion of a day is the replayed one."""
    stored = read_json(store.latest("champion", day.isoformat()).path / "champion.json")["model"]
    expected = ledger.champions[day.isoformat()]
    expect(stored == expected, f"champion of {day}: {stored}, by the replay {expected}")


def check_ids(
    ledger: Ledger, store: ArtifactStore, deliveries: Deliveries, day: date, *, opens: bool
) -> None:
    """Assert that every delivered item has a unique ID, unchanged inside the tokenizer version."""
    ids = load_semantic_ids(store.latest("semantic_ids", day.isoformat()).path)
    rows = dict(zip(ids.item_ids.tolist(), ids.codes.tolist(), strict=True))
    version = ids.tokenizer_version
    expect(opens == (version != ledger.tokenizer_version), f"{day}: tokenizer version {version}")
    expect(len({tuple(code) for code in rows.values()}) == len(rows), f"{day}: a shared ID")
    missing = deliveries.catalogue(day) - rows.keys()
    expect(not missing, f"{day}: {len(missing)} items of the delivery have no ID")
    if version == ledger.tokenizer_version:
        moved = [item for item, code in ledger.ids.items() if rows.get(item) != code]
        expect(not moved, f"{day}: the IDs of {len(moved)} items moved, {moved[:3]}")
    ledger.tokenizer_version, ledger.ids = version, rows


@dataclass(frozen=True)
class ServedFiles:
    """The files that consumers read.

    Attributes:
        facts: Contents of `served.json`.
        lists: Items of each user by rank.
        models: Model versions in the table.
    """

    facts: Mapping[str, Any]
    lists: Mapping[str, list[str]]
    models: set[str]

    @classmethod
    def read(cls, serving: Path) -> "ServedFiles":
        """Read `serving/current`."""
        current = (serving / "current").resolve()
        rows = pq.read_table(current / "recommendations.parquet").sort_by(
            [("user_id", "ascending"), ("rank", "ascending")]
        )
        lists: dict[str, list[str]] = {}
        for user, item in zip(
            rows["user_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True
        ):
            lists.setdefault(user, []).append(item)
        return cls(
            read_json(current / "served.json"), lists, set(rows["model_version"].to_pylist())
        )


def check_served(
    ledger: Ledger,
    store: ArtifactStore,
    deliveries: Deliveries,
    served: ServedFiles,
    day: date,
    window_days: int,
) -> None:
    """Assert that the day's lists are of the expected model, users and items."""
    expect(served.facts["day"] == day.isoformat(), f"{served.facts['day']} is served, not {day}")
    champions = [d for d in sorted(ledger.champions) if d <= day.isoformat()]
    model = ledger.champions[champions[-1]]
    name = model.get("system") or model["version"]
    expect(served.models == {name}, f"{day}: {served.models} serves, by the replay {name}")
    made = store.latest("recommendations", day.isoformat()).manifest
    until = date.fromisoformat(made["metadata"]["sessions_until"])
    users = deliveries.users_between(until - timedelta(days=window_days), until)
    expect(served.lists.keys() == users, f"{day}: not the active users are served")
    expect(not users & set(ledger.erased), f"{day}: erased users are served")
    catalogue, length = deliveries.catalogue(day), made["config"]["list_length"]
    for user, items in served.lists.items():
        expect(len(set(items)) == len(items), f"{day}: {user} gets an item twice")
        expect(len(items) <= length, f"{day}: {user} gets {len(items)} items")
        gone = set(items) - catalogue
        expect(not gone, f"{day}: {user} gets {len(gone)} items that are not in the catalogue")
    longest = sorted(len(items) for items in served.lists.values())
    wanted = min(length, len(catalogue) // 2)
    expect(longest[0] >= wanted, f"{day}: the shortest list has {longest[0]} items")
