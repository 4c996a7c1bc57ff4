"""Arms of the simulated A/B test: whatever ranks items, made a policy of the simulated app.

Models are those of one night and stay as they are while the test runs; every morning they read the
histories again.

Shapes: A users asked for, H history items, X excluded items, L lists, N items.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from onerec.alignment.candidates import sample_contexts
from onerec.alignment.preferences import make_preferences
from onerec.alignment.train import AlignmentData, fit_alignment
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import PipelineConfig
from onerec.datasets.simulator.world import Array, item_ids
from onerec.evaluation.baselines import load_baselines
from onerec.evaluation.baselines.cascade import fit_cascade
from onerec.generation import Trie
from onerec.model import load_model
from onerec.ranked_lists import Ranker, last_items
from onerec.recommender import Recommender
from onerec.reward import load_ensemble, load_reward
from onerec.session_dataset.generator_sessions import SessionTensors, load_session_tensors
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from onerec.training import Runtime, TrainingJob, reproducible, train

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Catalogue:
    """Items as the app numbers them and as the semantic-ID table does.

    Attributes:
        index: (numbers,) table index of each item of the app, -1 where the table has none.
        number: (N,) the other way.
        candidates: (N,) booleans: what may be listed.
    """

    index: Array
    number: Array
    candidates: Array

    @classmethod
    def of(cls, ids: SemanticIds, num_items: int, candidates: Array) -> "Catalogue":
        """Match both.

        Args:
            ids: The table.
            num_items: Items of the app.
            candidates: (N,) booleans: what may be listed.

        Raises:
            ValueError: The table is not of this app.
        """
        index = np.asarray(ids.index_of(item_ids(np.arange(num_items))))
        number = np.full(len(ids.item_ids), -1)
        number[index[index >= 0]] = np.flatnonzero(index >= 0)
        if (number < 0).any():
            missing = ids.item_ids[int(np.argmin(number))]
            raise ValueError(
                f"semantic_ids: {missing!r} is no item of this simulated app; use the settings "
                "(seed, size, first day) that its night was made with"
            )
        return cls(index, number, candidates)


class ArmPolicy:
    """A `Policy`: translates item numbers, and fills up with what is popular.

    Attributes:
        asked: Places of lists asked for so far.
        filled: Those that popularity filled.
    """

    def __init__(self, ranker: Ranker, fallback: Ranker, catalogue: Catalogue) -> None:
        self.ranker, self.fallback, self.catalogue = ranker, fallback, catalogue
        self.asked = self.filled = 0

    def __call__(self, history: Array, excluded: Array, length: int) -> Array:
        """See `experiments.ab_test.traffic.Policy`."""
        rows = torch.from_numpy(_mapped(history, self.catalogue.index))
        known = last_items(rows, history.shape[1]).numpy()
        refused = _mapped(excluded, self.catalogue.index)
        candidates = self.catalogue.candidates
        own = self.ranker.rank(known, length, refused, candidates).items
        self.asked += own.size
        self.filled += int((own < 0).sum())
        refused = np.concatenate([refused, own], axis=1)
        more = self.fallback.rank(known, length, refused, candidates).items
        both = torch.from_numpy(np.concatenate([own, more], axis=1))
        return _mapped(last_items(both, 2 * length).numpy()[:, :length], self.catalogue.number)


def train_larger(
    store: ArtifactStore,
    read: Mapping[str, Artifact],
    day: date,
    stages: PipelineConfig,
    *,
    runtime: Runtime,
    code: str,
    on_progress: Callable[[str], None],
) -> Artifact:
    """The larger generator, fitted to the window before the day; read again where it is there."""
    used = {n: read[n] for n in ("session_dataset", "semantic_ids")}

    def fill(directory: Path, scratch: Path) -> float:
        job = TrainingJob(
            session_dataset=used["session_dataset"].path,
            semantic_ids=used["semantic_ids"].path,
            history_length=stages.sessions.history_length,
            session_items=stages.sessions.session_items,
            model=stages.model,
            training=stages.training,
            runtime=runtime,
        )
        return train(
            job,
            out_dir=directory,
            scratch=scratch,
            on_progress=lambda progress: on_progress(f"larger: {progress}"),
        ).best_valid_loss

    config = {"model": asdict(stages.model), "training": asdict(stages.training)}
    return made_once(store, "ab_test_larger", day, config, used, code, fill, on_progress)


def align(
    store: ArtifactStore,
    read: Mapping[str, Artifact],
    start: Artifact,
    day: date,
    stages: PipelineConfig,
    *,
    runtime: Runtime,
    code: str,
    device: str,
    on_progress: Callable[[str], None],
) -> Artifact:
    """A round of alignment of the larger generator by the night's reward model, without a gate."""
    used = {n: read[n] for n in ("session_dataset", "semantic_ids", "reward_model")}
    used |= {"start": start}

    def fill(directory: Path, scratch: Path) -> None:
        ids = load_semantic_ids(used["semantic_ids"].path)
        model, tokenizer_version = load_model(
            start.path, expected_tokenizer_version=ids.tokenizer_version
        )
        sessions, valid = (_good_sessions(used["session_dataset"], s, ids, stages) for s in SPLITS)
        allowed = torch.from_numpy(ids.known_before(day))
        reward_models = load_ensemble(used["reward_model"].path)
        settings = stages.alignment
        with reproducible(runtime):
            pairs = make_preferences(
                model,
                reward_models,
                load_file(used["semantic_ids"].path / "vectors.safetensors")["vectors"],
                sample_contexts(sessions, settings.sample_users, settings.seed),
                ids.codes,
                Trie.build(ids.codes, ids.codebook_size, allowed),
                decoding=stages.decoding,
                reward=reward_models[0].config,
                alignment=settings,
                device=device,
                on_batch=lambda done, total: on_progress(f"pairs of {done} of {total} users"),
            )
        fit_alignment(
            model.cpu(),
            AlignmentData(preferences=pairs, train=sessions, valid=valid, codes=ids.codes),
            settings,
            directory,
            tokenizer_version=tokenizer_version,
            runtime=runtime,
            on_epoch=lambda numbers: on_progress(f"{settings.method}: {numbers}"),
        )

    config = {"alignment": asdict(stages.alignment), "decoding": asdict(stages.decoding)}
    return made_once(store, "ab_test_larger_aligned", day, config, used, code, fill, on_progress)


def made_once(
    store: ArtifactStore,
    name: str,
    day: date,
    config: Mapping[str, Any],
    read: Mapping[str, Artifact],
    code: str,
    fill: Callable[[Path, Path], float | None],
    on_progress: Callable[[str], None],
) -> Artifact:
    """An artifact of the experiment: the one of an earlier run with the same inputs, else made.

    Args:
        store: Where it lies.
        name: Of the asset.
        day: Its partition.
        config: Settings.
        read: What it is made from.
        code: Version of the code.
        fill: Makes the files in a directory, with another one for unfinished work; returns the
            validation loss where it is known.
        on_progress: PolicyBatch which of both it was.
    """
    partition = day.isoformat()
    key = {
        "config": dict(config),
        "upstream": {n: artifact.version for n, artifact in read.items()},
        "code_version": code,
    }
    before = store.made_with(name, partition, key)
    if before is not None:
        on_progress(f"{name}: read from {before.version}")
        return before
    scratch = store.scratch(name, partition, key)
    with store.write(name, partition, **key) as draft:
        loss = fill(draft.path, scratch)
        draft.metadata.update({} if loss is None else {"best_valid_loss": loss})
    shutil.rmtree(scratch)
    return draft.artifact


def baseline_arms(
    read: Mapping[str, Artifact], ids: SemanticIds, day: date, stages: PipelineConfig
) -> dict[str, Ranker]:
    """The night's counting baselines and its cascade, which is fitted here where it has none."""
    fitted = load_baselines(read["baselines"].path)
    cascade = fitted.learned.get("cascade") or fit_cascade(
        read["session_dataset"].path,
        ids,
        fitted.candidates,
        test_day=day,
        neighbours=stages.evaluation.neighbours,
        history_length=stages.sessions.history_length,
        seed=stages.evaluation.seed,
    )
    return {
        "popularity_recent": fitted.popularity_recent,
        "itemknn": fitted.item_knn,
        "cascade": cascade,
    }


def generator_arm(
    checkpoint: Path,
    read: Mapping[str, Artifact],
    ids: SemanticIds,
    stages: PipelineConfig,
    *,
    device: str,
    by_reward: bool,
) -> Recommender:
    """A checkpoint as it serves, in float32."""
    model, _ = load_model(
        checkpoint, expected_tokenizer_version=ids.tokenizer_version, device=device
    )
    reward = vectors = None
    if by_reward:
        reward = load_reward(read["reward_model"].path)
        vectors = load_file(read["semantic_ids"].path / "vectors.safetensors")["vectors"]
    return Recommender(
        model,
        ids,
        config=replace(stages.decoding, serving_precision="float32"),
        reward=reward,
        vectors=vectors,
    )


def _good_sessions(
    data: Artifact, split: str, ids: SemanticIds, stages: PipelineConfig
) -> SessionTensors:
    return load_session_tensors(
        data.path,
        split,
        ids,
        good_only=True,
        history_length=stages.sessions.history_length,
        session_items=stages.sessions.session_items,
    )


def _mapped(items: Array, table: Array) -> Array:
    return np.where(items >= 0, table[np.where(items >= 0, items, 0)], -1)
