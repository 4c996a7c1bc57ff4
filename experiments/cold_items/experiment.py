"""The experiment from a session dataset and its catalogue to what the table shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from experiments.cold_items.held_out import (
    HeldOutCatalogue,
    choose_held_out,
    hold_out,
    open_held_out,
)
from experiments.cold_items.systems import ContentKNN, WithContentItems, generator_systems
from experiments.cold_items.table import (
    CONTENT_KNN,
    ITEM_KNN,
    WITH_CONTENT,
    ColdItemsRun,
    measure,
)
from onerec.config import EmbeddingConfig, PipelineConfig, TrainingConfig
from onerec.evaluation.baselines import fit_baselines
from onerec.ranked_lists import Ranker
from onerec.session_dataset.interactions import Interactions, load_interactions
from onerec.session_dataset.newest_watches import WatchesBefore, split_day
from onerec.session_dataset.splits import LEARNED
from onerec.training import Runtime, TrainingJob, train

DONE = "finished"
CHECKPOINTS: Mapping[str, Mapping[str, bool]] = {
    "plain": {"dense_head": False},
    "dense": {"dense_head": True},
}
"""Trained generators: what each changes in the nightly run's model."""


@dataclass(frozen=True, kw_only=True)
class ColdItems:
    """The experiment over the data of a nightly run.

    Attributes:
        session_dataset: Files of the artifact.
        test_day: D.
        base: Settings of all stages.
        catalogue: `schema.ITEMS` columns and `first_seen` of day D.
        supplied: The log's own item vectors, if it has any.
        embeddings: Settings of the item vectors.
        share: Share of the items that are held out.
        seed: Of the choice of items, and added to that of the trainings.
        runtime: Hardware and threads.
        scratch: Keeps finished parts; a run that was killed goes on from there.
        on_progress: Called with a line of text now and then.
    """

    session_dataset: Path
    test_day: date
    base: PipelineConfig
    catalogue: pa.Table
    supplied: pa.Table | None
    embeddings: EmbeddingConfig
    share: float
    seed: int
    runtime: Runtime
    scratch: Path
    on_progress: Callable[[str], None] = lambda message: None

    @property
    def training(self) -> TrainingConfig:
        """Of the generators: from random weights, and with nothing that reads the validation day,
        on which settings are compared."""
        return replace(self.base.training, warm_start=False, fresh_epochs=0, item_neighbours=0)


def run_cold_items(test: ColdItems, dataset: str) -> ColdItemsRun:
    """Hold items out, train, measure the validation day and the test day.

    Args:
        test: The experiment.
        dataset: Name of the data set.

    Raises:
        ValueError: The nightly run has no validation day.
    """
    sessions, day = test.session_dataset, test.test_day
    valid_day = split_day(sessions, "valid")
    if valid_day is None:
        raise ValueError(
            f"{sessions}: no session validates; make a nightly run whose window has two days with "
            "sessions"
        )
    held = _held_out(test)
    checkpoints = {name: _trained(test, held, name) for name in CHECKPOINTS}
    measured = {}
    for split, of_day in (("valid", valid_day), ("test", day)):
        cases = held.cases(
            sessions, split, of_day, history_length=test.base.sessions.history_length
        )
        candidates = held.learned.candidates(of_day)
        test.on_progress(f"{split}: {len(cases)} users")
        splits = ("train",) if split == "valid" else LEARNED
        log = load_interactions(sessions, held.learned, test_day=of_day, splits=splits)
        rankers = _rankers(test, held, checkpoints, of_day, candidates, log)
        measured[split] = measure(rankers, cases, held.is_held_out, candidates)
    return ColdItemsRun(
        dataset=dataset, valid=measured["valid"], test=measured["test"], share=test.share
    )


def _held_out(test: ColdItems) -> HeldOutCatalogue:
    out_dir, day = test.scratch / "catalogue", test.test_day
    if not (out_dir / DONE).exists():
        names = choose_held_out(test.catalogue, test.share, test.seed, before=day)
        hold_out(
            test.catalogue,
            test.session_dataset,
            names,
            supplied=test.supplied,
            embeddings=test.embeddings,
            tokenizer=test.base.tokenizer,
            day=day,
            out_dir=out_dir,
        )
        (out_dir / DONE).touch()
    return open_held_out(out_dir)


def _trained(test: ColdItems, held: HeldOutCatalogue, name: str) -> Path:
    """Directory of a generator trained without the held-out items' events."""
    base, out_dir = test.base, test.scratch / name
    if not (out_dir / DONE).exists():
        out_dir.mkdir(parents=True, exist_ok=True)
        job = TrainingJob(
            session_dataset=test.session_dataset,
            semantic_ids=held.directory,
            history_length=base.sessions.history_length,
            session_items=base.sessions.session_items,
            model=replace(base.model, **CHECKPOINTS[name]),
            training=replace(test.training, seed=test.training.seed + test.seed),
            runtime=test.runtime,
        )
        train(
            job,
            out_dir=out_dir,
            scratch=test.scratch / f"{name}_unfinished",
            on_progress=lambda progress: test.on_progress(f"{name}: {progress}"),
        )
        (out_dir / DONE).touch()
    return out_dir


def _rankers(
    test: ColdItems,
    held: HeldOutCatalogue,
    checkpoints: Mapping[str, Path],
    day: date,
    candidates: np.ndarray,
    log: Interactions,
) -> dict[str, Ranker]:
    base = test.base
    counted = fit_baselines(log, candidates, neighbours=base.evaluation.neighbours)
    content = ContentKNN(held.content, counted.popularity.weights, candidates)
    new = held.is_held_out | (log.exposures == 0)
    return {
        "popularity": counted.popularity,
        "popularity of the last days": counted.popularity_recent,
        ITEM_KNN: counted.item_knn,
        CONTENT_KNN: content,
        **{
            name: WithContentItems(counted.item_knn, content, new, share)
            for name, share in WITH_CONTENT.items()
        },
        **generator_systems(
            checkpoints,
            held,
            new,
            decoding=base.decoding,
            watches=WatchesBefore(test.session_dataset, day),
            device=test.runtime.torch_device(),
        ),
    }
