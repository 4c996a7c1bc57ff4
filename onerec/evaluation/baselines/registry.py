"""The registry of baselines: by name, how each is fitted, written and read. A new one goes here.

The counting ones are always fitted: popularity is what novelty and the promotion rule measure by,
and both retrievers of the cascade are among them.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from onerec.artifacts import read_json, write_json
from onerec.config import (
    EvaluationConfig,
    Runtime,
    TokenizerConfig,
    TrainingConfig,
    without_recency,
)
from onerec.evaluation.baselines.cascade import Cascade, fit_cascade, load_cascade
from onerec.evaluation.baselines.sequence_losses import LOSSES
from onerec.evaluation.baselines.sequences import WindowData, load_newest_windows, load_windows
from onerec.evaluation.baselines.simple import (
    ItemKNN,
    LogSimilarity,
    OwnRepeats,
    Popularity,
    fit_item_knn,
)
from onerec.evaluation.baselines.tiger import TigerRanker, load_tiger, tiger_codes
from onerec.evaluation.baselines.transformer import (
    SequenceRanker,
    grown,
    load_sequence_ranker,
)
from onerec.evaluation.ndcg_by_weight import Earlier, NdcgByWeight
from onerec.evaluation.recency import (
    NOT_CHOSEN,
    ChosenPrior,
    RecencyCases,
    WithRecency,
    chosen_prior,
    load_recency_cases,
)
from onerec.ranked_lists import Ranker
from onerec.session_dataset.eval_users import load_eval_users
from onerec.session_dataset.interactions import Interactions, load_interactions
from onerec.session_dataset.newest_watches import WatchesBefore, split_day
from onerec.session_dataset.one_day_earlier import write_one_day_earlier
from onerec.tokenizer.semantic_ids import SemanticIds

LearnedBaseline = SequenceRanker | TigerRanker | Cascade
OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class FittedBaselines:
    """All that a `baselines` artifact holds.

    Attributes:
        exposures: (N,) how often each item was shown in the window.
        popularity: By watches of the window.
        popularity_recent: The same with a half-life.
        item_knn: Neighbours by co-watching.
        learned: Sequence models, TIGER and the cascade by name.
        newest_watches: (N,) what recency priors count.
        item_knn_prior: Of item-KNN; the learned systems have their own.
    """

    exposures: np.ndarray
    popularity: Popularity
    popularity_recent: Popularity
    item_knn: ItemKNN
    learned: Mapping[str, LearnedBaseline] = field(default_factory=dict)
    newest_watches: np.ndarray | None = None
    item_knn_prior: ChosenPrior = NOT_CHOSEN

    @property
    def candidates(self) -> np.ndarray:
        """(N,) booleans: items of the catalogue before the test day."""
        return self.popularity.candidates

    @property
    def rankers(self) -> dict[str, Ranker]:
        """The rankers under the names they have in metrics."""
        return {
            "popularity": self.popularity,
            "popularity_recent": self.popularity_recent,
            "own_repeats": OwnRepeats(self.popularity_recent),
            "itemknn": self.item_knn,
            **self.learned,
            **self._with_recency(),
        }

    def _with_recency(self) -> dict[str, Ranker]:
        """Those with a recency prior; without it they have names of their own.

        Popularity has its recent form instead.
        """
        if self.newest_watches is None:
            return {}
        systems: dict[str, Ranker] = {"itemknn": LogSimilarity(self.item_knn), **self.learned}
        found: dict[str, Ranker] = {}
        for name, recency_prior in self._recency_priors.items():
            prior = recency_prior.of(self.newest_watches)
            if prior is not None:
                found[name] = WithRecency(systems[name], prior.numpy())
                found[without_recency(name)] = systems[name]
        return found

    @property
    def _recency_priors(self) -> dict[str, ChosenPrior]:
        own = {name: system.recency_prior for name, system in self.learned.items()}
        return {"itemknn": self.item_knn_prior, **own}

    @property
    def recency_ndcg(self) -> dict[str, NdcgByWeight]:
        """What the validation day measured of each prior's weight, by system."""
        priors = self._recency_priors.items()
        return {name: prior.measured for name, prior in priors if prior.measured.users}

    def facts(self) -> dict[str, float]:
        """Counts worth showing, and the weights of the recency priors."""
        weights = {name: prior.weight for name, prior in self._recency_priors.items()}
        return {
            "candidate items": int(self.candidates.sum()),
            "candidates never shown": int((self.exposures[self.candidates] == 0).sum()),
            "watches": int(self.popularity.weights.sum()),
            "neighbour pairs": int(self.item_knn.similarity.nnz),
            **{f"recency prior of {name}": weight for name, weight in weights.items()},
        }

    def save(self, directory: Path) -> None:
        """Write `items.parquet` (counts per item) and `neighbours.parquet` (a similarity a row).

        Each learned system has a directory of its own, and `learned.json` names them.
        """
        items = {
            "item_index": np.arange(len(self.exposures)),
            "exposures": self.exposures,
            "watches": self.popularity.weights,
            "recent_watches": self.popularity_recent.weights,
            "is_candidate": self.candidates,
        }
        if self.newest_watches is not None:
            items["newest_watches"] = self.newest_watches
        pq.write_table(pa.table(items), directory / "items.parquet")
        pairs = self.item_knn.similarity.tocoo()
        neighbours = {
            "item_index": np.asarray(pairs.coords[0], dtype=np.int64),
            "neighbour_index": np.asarray(pairs.coords[1], dtype=np.int64),
            "cosine": pairs.data,
        }
        pq.write_table(pa.table(neighbours), directory / "neighbours.parquet")
        for name, system in self.learned.items():
            system.save(directory / name)
        write_json(directory / "learned.json", list(self.learned))
        self.item_knn_prior.save(directory)


def fit_baselines(
    interactions: Interactions, candidates: np.ndarray, *, neighbours: int
) -> FittedBaselines:
    """Fit the counting baselines on one window."""
    return FittedBaselines(
        exposures=interactions.exposures,
        popularity=Popularity(interactions.watches, candidates),
        popularity_recent=Popularity(interactions.recent_watches, candidates),
        item_knn=fit_item_knn(interactions, candidates, neighbours=neighbours),
    )


@dataclass(frozen=True, kw_only=True)
class BaselineInputs:
    """What learned baselines are fitted to.

    Attributes:
        session_dataset: Files of the artifact; `test` is never read.
        semantic_ids: The catalogue.
        candidates: (N,) booleans: items that may be listed.
        test_day: Day D.
        history_length: H, the same as the generator's.
        vectors: (N, Dv) item vectors, row-aligned with the catalogue; TIGER alone needs them.
        last_phase: Settings of the generator's last phase, which the sequence baselines share; None
            leaves it out.
        runtime: Hardware of the sequence baselines.
        recency_days: The newest days that recency priors count; None leaves the priors out.
        earlier: What nightly runs before measured of the priors' weights, by system.
        scratch: Directory of their unfinished work, which several processes share.
        night_before: Files of the `baselines` artifact of the validation day, fitted with the same
            settings: the sequence models that could serve then.
    """

    session_dataset: Path
    semantic_ids: SemanticIds
    candidates: np.ndarray
    test_day: date
    history_length: int
    vectors: np.ndarray | None = None
    last_phase: TrainingConfig | None = None
    runtime: Runtime = field(default_factory=lambda: Runtime(accelerator="cpu"))
    recency_days: int | None = None
    earlier: Earlier = field(default_factory=dict)
    scratch: Path | None = None
    night_before: Path | None = None

    def scratch_of(self, name: str) -> Path | None:
        """The directory of one system's unfinished work."""
        return self.scratch and self.scratch / name

    @property
    def newest_watches(self) -> np.ndarray | None:
        """(N,) what the recency priors count; None without them."""
        if self.recency_days is None:
            return None
        watches = WatchesBefore(self.session_dataset, self.test_day)
        return watches.count(self.semantic_ids, self.recency_days)

    @cached_property
    def recency_cases(self) -> RecencyCases | None:
        """What the weights of recency priors are chosen on; None where they are left out."""
        if self.recency_days is None:
            return None
        return load_recency_cases(
            self.session_dataset,
            self.semantic_ids,
            history_length=self.history_length,
            days=self.recency_days,
        )

    @cached_property
    def sequences(self) -> WindowData:
        """Windows of the training days, the users of the validation day, and the newest days."""
        data, ids, length = self.session_dataset, self.semantic_ids, self.history_length
        phase = self.last_phase
        load_newest = phase and partial(
            load_newest_windows, data, ids, history_length=length, days=phase.fresh_days
        )
        cases, day = self.recency_cases, split_day(data, "valid")
        listed = None if day is None else ids.candidates(day)
        chooses_prior = cases is not None and len(cases.users) > 0
        return WindowData(
            windows=load_windows(data, ids, history_length=length),
            valid=cases.users
            if cases is not None
            else load_eval_users(data, "valid", ids, history_length=length, rankable=listed),
            candidates=self.candidates,
            valid_candidates=listed,
            recency=cases,
            newest=load_newest and load_newest(),
            newest_before=load_newest(splits=("train",)) if load_newest and chooses_prior else None,
        )

    def sequences_of(self, name: str) -> WindowData:
        """The same for one system."""
        served = None
        directory = self.night_before and self.night_before / name
        if directory is not None and name in LOSSES and directory.is_dir():
            served = load_sequence_ranker(directory, self.candidates, "cpu")
            served = replace(served, model=grown(served.model, len(self.candidates)))
        return replace(self.sequences, served=served, earlier=self.earlier.get(name, ()))

    def prior_of(
        self, name: str, seed: int, fit_before: Callable[[date, np.ndarray], Ranker | None]
    ) -> ChosenPrior:
        """The recency prior of a system that is fitted at once.

        Args:
            name: The system.
            seed: Of the sample of users.
            fit_before: From the validation day and its candidates (N,) to the system as of the days
                before it, None where they are too few.
        """
        cases, day = self.recency_cases, split_day(self.session_dataset, "valid")
        if cases is None or day is None:
            return NOT_CHOSEN
        ranker = fit_before(day, cases.candidates) if len(cases.users) else None
        return chosen_prior(ranker, cases, seed=seed, earlier=self.earlier.get(name, ()))


def fit_item_knn_prior(inputs: BaselineInputs, config: EvaluationConfig) -> ChosenPrior:
    """The recency prior of item-KNN, chosen on the last validation days, on its own one by
    neighbours of the training days alone."""

    def fit_before(day: date, candidates: np.ndarray) -> Ranker:
        before = load_interactions(
            inputs.session_dataset, inputs.semantic_ids, test_day=day, splits=("train",)
        )
        return LogSimilarity(fit_item_knn(before, candidates, neighbours=config.neighbours))

    return inputs.prior_of("itemknn", config.seed, fit_before)


def _fit_sequences(
    name: str, inputs: BaselineInputs, config: EvaluationConfig, on_progress: OnProgress
) -> LearnedBaseline:
    # here, so that reading baselines does not load Lightning
    from onerec.evaluation.baselines.sequence_training import Execution, fit_sequence_model
    from onerec.training.epoch_text import epoch_as_text

    return fit_sequence_model(
        LOSSES[name],
        inputs.sequences_of(name),
        config,
        newest=inputs.last_phase,
        execution=Execution(runtime=inputs.runtime, scratch=inputs.scratch_of(name)),
        on_epoch=lambda numbers: on_progress(f"{name}: {epoch_as_text(numbers)}"),
    )


def _fit_tiger(
    inputs: BaselineInputs, config: EvaluationConfig, on_progress: OnProgress
) -> LearnedBaseline:
    from onerec.evaluation.baselines.sequence_training import Execution, fit_tiger
    from onerec.training.epoch_text import epoch_as_text

    ids, candidates = inputs.semantic_ids, inputs.candidates
    assert inputs.vectors is not None, "TIGER makes its semantic IDs of item vectors"
    tokenizer = TokenizerConfig(
        method="rqvae",
        num_levels=ids.num_sid_tokens - 1,
        codebook_size=ids.codebook_size,
        seed=config.seed,
    )
    codes = tiger_codes(ids, inputs.vectors, candidates, tokenizer, on_progress=on_progress)
    return fit_tiger(
        inputs.sequences_of("tiger"),
        codes,
        ids.codebook_size,
        config,
        newest=inputs.last_phase,
        execution=Execution(runtime=inputs.runtime, scratch=inputs.scratch_of("tiger")),
        on_epoch=lambda numbers: on_progress(f"tiger: {epoch_as_text(numbers)}"),
    )


def _fit_cascade(
    inputs: BaselineInputs, config: EvaluationConfig, on_progress: OnProgress
) -> LearnedBaseline:
    on_progress("cascade: retrievers, then the ranker")
    cascade = partial(
        fit_cascade,
        semantic_ids=inputs.semantic_ids,
        neighbours=config.neighbours,
        history_length=inputs.history_length,
        seed=config.seed,
    )
    fitted = cascade(inputs.session_dataset, candidates=inputs.candidates, test_day=inputs.test_day)

    def fit_before(day: date, candidates: np.ndarray) -> Cascade | None:
        # of the training days alone, whose last one the ranker learned
        with TemporaryDirectory() as earlier:
            if not write_one_day_earlier(inputs.session_dataset, Path(earlier)):
                return None
            return cascade(Path(earlier), candidates=candidates, test_day=day)

    prior = inputs.prior_of("cascade", config.seed, fit_before)
    on_progress(f"cascade: weight {prior.weight:g} of the recency prior")
    return replace(fitted, recency_prior=prior)


LEARNED: Mapping[str, Callable[[BaselineInputs, EvaluationConfig, OnProgress], LearnedBaseline]] = {
    **{name: partial(_fit_sequences, name) for name in LOSSES},
    "tiger": _fit_tiger,
    "cascade": _fit_cascade,
}
"""Baselines that are fitted only where the settings name them, and how."""


def fit_learned(
    inputs: BaselineInputs,
    config: EvaluationConfig,
    *,
    on_progress: OnProgress = lambda message: None,
    on_fitted: Callable[[str, float], None] = lambda name, seconds: None,
) -> dict[str, LearnedBaseline]:
    """Fit the learned systems that `config.baselines` names.

    Args:
        inputs: What they are fitted to.
        config: Names, budget and seed.
        on_progress: Called with a line of text now and then.
        on_fitted: Called with a system's name and the seconds it took.
    """
    fitted: dict[str, LearnedBaseline] = {}
    for name in (name for name in config.systems if name in LEARNED):
        began = time.monotonic()
        fitted[name] = LEARNED[name](inputs, config, on_progress)
        on_fitted(name, time.monotonic() - began)
    return fitted


def load_baselines(directory: Path, *, device: str = "cpu") -> FittedBaselines:
    """Read what `FittedBaselines.save` wrote.

    Args:
        directory: The `baselines` artifact.
        device: Where SASRec, BERT4Rec and TIGER rank; the others need no device.
    """
    items = pq.read_table(directory / "items.parquet")
    pairs = pq.read_table(directory / "neighbours.parquet")
    watches, recent, exposures = (
        items.column(name).to_numpy() for name in ("watches", "recent_watches", "exposures")
    )
    newest = None
    if "newest_watches" in items.column_names:  # not in artifacts before there were priors
        newest = items.column("newest_watches").to_numpy()
    candidates = items.column("is_candidate").to_numpy(zero_copy_only=False).astype(bool)
    row, column = (pairs.column(name).to_numpy() for name in ("item_index", "neighbour_index"))
    similarity = sp.csr_array(
        (pairs.column("cosine").to_numpy(), (row, column)), shape=(items.num_rows,) * 2
    )
    knn, popular = ItemKNN(similarity, watches, candidates), Popularity(recent, candidates)

    def learned(name: str) -> LearnedBaseline:
        if name == "cascade":
            return load_cascade(directory / name, knn, popular)
        if name == "tiger":
            return load_tiger(directory / name, candidates, device)
        return load_sequence_ranker(directory / name, candidates, device)

    return FittedBaselines(
        exposures=exposures,
        popularity=Popularity(watches, candidates),
        popularity_recent=popular,
        item_knn=knn,
        learned={name: learned(name) for name in read_json(directory / "learned.json")},
        newest_watches=newest,
        item_knn_prior=ChosenPrior.load(directory),
    )
