"""Ages are compared on the same users and days, by hand arithmetic; a model serves later days."""

import dataclasses
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.freshness.decay import (
    OF_THE_DAY,
    NightlyRunFiles,
    measure_ages,
    rankers,
    rows_of_ages,
    table_of_ages,
)
from experiments.reporting.result_tables import Provenance
from onerec.config import EvaluationConfig
from onerec.evaluation.baselines import fit_baselines, load_baselines
from onerec.evaluation.generators import load_generator
from onerec.evaluation.metric_table import TableColumn
from onerec.model import OneRec, save_model
from onerec.session_dataset.interactions import load_interactions
from tests.core.evaluation import night as small

LOST = TableColumn("recall@10", reference=OF_THE_DAY)
EVALUATION = EvaluationConfig(bootstrap_samples=50)
MADE = Provenance(data="toy", config="tiny", seeds=(0,), budget="none", commit="abc")
EVE = small.DAY - timedelta(days=1)


def test_losses_are_of_the_same_users_and_days() -> None:
    cases = [
        # system, age, day, user, recall
        ("pretrained", 0, 1, "a", 0.5),
        ("pretrained", 0, 2, "a", 1.0),
        ("pretrained", 0, 2, "b", 0.0),
        ("pretrained", 1, 2, "a", 0.4),
        ("pretrained", 1, 2, "b", 0.2),
        ("popularity_recent", 0, 1, "a", 0.1),
    ]
    measured = pd.DataFrame(cases, columns=["system", "age", "day", "user_id", "recall@10"])
    measured["ndcg@10"] = measured["recall@10"]
    rows = {(row.system, row.column): row.value for row in rows_of_ages(measured, EVALUATION)}
    assert rows["OneRec, 0 days old", TableColumn("recall@10")] == pytest.approx((0.75 + 0.0) / 2)
    assert rows["OneRec, 1 day old", TableColumn("recall@10")] == pytest.approx((0.4 + 0.2) / 2)
    lost = rows["OneRec, 1 day old", LOST]
    assert lost == pytest.approx((-0.6 + 0.2) / 2)
    assert ("OneRec, 0 days old", LOST) not in rows
    assert rows["recent popularity, 0 days old", TableColumn("ndcg@10")] == pytest.approx(0.1)


@pytest.fixture
def nights(tmp_path: Path) -> dict[date, NightlyRunFiles]:
    """The small night twice, with unlike weights."""
    found = {}
    for seed, day in enumerate((EVE, small.DAY)):
        root, ids = tmp_path / day.isoformat(), small.catalogue()
        for name in ("session_dataset", "semantic_ids", "pretrained_checkpoint", "baselines"):
            (root / name).mkdir(parents=True)
        shutil.rmtree(root / "session_dataset")
        small.write_sessions(root / "session_dataset", small.rows())
        small.write_catalogue(root / "semantic_ids", ids)
        small.write_generator(root / "pretrained_checkpoint", seed=seed)
        window = load_interactions(root / "session_dataset", ids, test_day=small.DAY)
        fit_baselines(window, ids.known_before(small.DAY), neighbours=5).save(root / "baselines")
        names = ("session_dataset", "semantic_ids", "pretrained_checkpoint", "baselines")
        found[day] = NightlyRunFiles(day=day, files={name: root / name for name in names})
    return found


def test_every_model_on_its_own_day_and_on_later_ones(nights: dict[date, NightlyRunFiles]) -> None:
    measured = measure_ages(nights, small.DECODING, EVALUATION)
    users = {
        key: part["user_id"].tolist() for key, part in measured.groupby(["day", "age", "system"])
    }
    assert {key[:2] for key in users} == {(EVE, 0), (small.DAY, 0), (small.DAY, 1)}
    for system in ("pretrained", "popularity_recent"):  # the same cases
        assert users[small.DAY, 0, system] == users[small.DAY, 1, system]
    of_day = measured[(measured["day"] == small.DAY) & (measured["system"] == "pretrained")]
    fresh, old = (of_day[of_day["age"] == age]["recall@10"].to_numpy() for age in (0, 1))
    assert (fresh != old).any()  # weights of another seed
    table = table_of_ages(nights, small.DECODING, EVALUATION, "toy", MADE)
    assert table.name == "freshness_toy"
    assert len(table.findings) == 2
    assert set(table.pictures()) == {LOST, TableColumn("recall@10")}


def test_counts_of_another_catalogue_go_to_the_same_items(
    nights: dict[date, NightlyRunFiles],
) -> None:
    made, served = nights[EVE], nights[small.DAY]
    reordered = NightlyRunFiles(day=served.day, files=served.files)
    order = np.arange(len(served.ids))[::-1].copy()
    moved = type(served.ids)(
        item_ids=served.ids.item_ids[order],
        codes=served.ids.codes[order.tolist()],
        tokenizer_version=served.ids.tokenizer_version,
        first_seen=served.ids.first_seen[order],
        codebook_size=served.ids.codebook_size,
    )
    reordered.__dict__["ids"] = moved
    weights = load_baselines(made.files["baselines"]).popularity_recent.weights
    found = rankers(made, reordered, small.DECODING)["popularity_recent"]
    assert found.weights.tolist() == weights[::-1].tolist()  # pyright: ignore


def test_a_dense_head_reads_the_vectors_of_items_that_came_since(
    nights: dict[date, NightlyRunFiles],
) -> None:
    made, served = nights[EVE], nights[small.DAY]
    checkpoint = made.files["pretrained_checkpoint"]
    model = OneRec(
        dataclasses.replace(small.SHAPE, dense_head=True, dense_encoder_layers=1),
        codebook_size=small.CODES,
        num_sid_tokens=small.SID_TOKENS,
        history_length=small.HISTORY,
        session_items=small.SESSION,
    )
    head = model.add_dense_head(len(served.ids) - 8, 6)
    torch.nn.init.normal_(head.known.weight)  # content counts for more than learned embeddings
    model.dense_share = 0.9
    save_model(model.eval(), checkpoint, tokenizer_version="version-a")
    cases = served.cases(EVALUATION)
    lists = rankers(made, served, small.DECODING)["pretrained"].rank(cases.history, 10)
    assert (lists.items >= len(served.ids) - 8).any()
    with pytest.raises(ValueError, match="pass the catalogue's vectors"):
        load_generator(checkpoint, served.ids, small.DECODING)


def test_one_night_alone_is_refused(nights: dict[date, NightlyRunFiles]) -> None:
    with pytest.raises(ValueError, match="run the nightly runs of consecutive days"):
        measure_ages({EVE: nights[EVE]}, small.DECODING, EVALUATION)
