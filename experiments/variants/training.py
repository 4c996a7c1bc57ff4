"""Reruns the stages that a variant changes, with the functions of a nightly run."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file

from experiments.nightly_artifacts import PublishedNightlyRun
from experiments.true_watch import TrueWatch, scored_by_truth
from experiments.variants.elite_sessions import elite_sessions
from experiments.variants.session_criteria import rebuild_sessions
from experiments.variants.variant import Variant
from onerec.alignment.candidates import ScoreCandidates, scored_candidates
from onerec.alignment.round_inputs import RoundInputs
from onerec.alignment.rounds import fit_round, round_preferences, with_sample
from onerec.artifacts import MANIFEST
from onerec.config import PipelineConfig
from onerec.datasets import EventSource
from onerec.embeddings.item_embeddings import (
    BEFORE_VALIDATION_FILE,
    ItemEmbeddings,
    load_vectors,
)
from onerec.evaluation.reward_weight import load_held_out_cases
from onerec.tokenizer.semantic_ids import load_semantic_ids
from onerec.tokenizer.tokenized_catalogue import (
    TokenizedCatalogue,
    extend_tokenized,
    tokenize_catalogue,
)
from onerec.training import (
    PretrainingData,
    Runtime,
    TrainingJob,
    fit_generator,
    reproducible,
    train,
)
from onerec.training.execution import Execution


@dataclass(frozen=True, kw_only=True)
class VariantFiles:
    """Directories of a checkpoint and of its training data.

    Attributes:
        checkpoint: The checkpoint.
        session_dataset: That of the nightly run, or one with other criteria or lengths.
        semantic_ids: Those of the nightly run, or of another tokenizer.
    """

    checkpoint: Path
    session_dataset: Path
    semantic_ids: Path

    @classmethod
    def of(cls, night: PublishedNightlyRun, directory: Path) -> "VariantFiles":
        """From a directory that `pretrain_variant` wrote."""
        own = {name: directory / name for name in ("session_dataset", "semantic_ids")}
        found = {name: path if path.exists() else night.files[name] for name, path in own.items()}
        return cls(checkpoint=directory, **found)


@dataclass(frozen=True, kw_only=True)
class VariantRun:
    """A variant with a seed, of a nightly run.

    Attributes:
        night: The nightly run.
        variant: The variant.
        settings: The nightly run's settings with the variant's changes and the seed.
        runtime: Hardware and threads.
        source: The log; needed by oracles only.
        device: Torch device of generators.
        on_progress: Called with progress messages.
    """

    night: PublishedNightlyRun
    variant: Variant
    settings: PipelineConfig
    runtime: Runtime
    source: EventSource | None = None
    device: str = "cpu"
    on_progress: Callable[[str], None] = lambda message: None


def pretrain_variant(run: VariantRun, out_dir: Path, scratch: Path) -> VariantFiles:
    """Run the stages that the variant changes up to pretraining; without changes copy the run's.

    Args:
        run: The variant.
        out_dir: Gets the checkpoint, and `session_dataset` and `semantic_ids` where they change.
        scratch: Directory of unfinished work, see `onerec.training.train`.
    """
    wanted, base = run.settings, run.night.base
    if wanted.sessions != base.sessions:
        rebuild_sessions(
            run.night.files["session_dataset"],
            out_dir / "session_dataset",
            wanted.sessions,
            base.sessions,
            run.night.test_day,
        )
    if wanted.tokenizer != base.tokenizer:
        _retokenize(run, out_dir / "semantic_ids")
    files = VariantFiles.of(run.night, out_dir)
    if wanted == base:
        ignored = shutil.ignore_patterns(MANIFEST)
        source = run.night.files["pretrained_checkpoint"]
        shutil.copytree(source, out_dir, ignore=ignored, dirs_exist_ok=True)
        return files
    job = TrainingJob(
        session_dataset=files.session_dataset,
        semantic_ids=files.semantic_ids,
        history_length=wanted.sessions.history_length,
        session_items=wanted.sessions.session_items,
        model=wanted.model,
        training=wanted.training,
        runtime=run.runtime,
    )
    train(job, out_dir=out_dir, scratch=scratch, on_progress=lambda p: run.on_progress(str(p)))
    return files


def _retokenize(run: VariantRun, out_dir: Path) -> None:
    """Open a separate tokenizer version on the nightly run's vectors; items keep their rows."""
    source = run.night.files["semantic_ids"]
    published = load_semantic_ids(source)
    vectors = load_file(source / "vectors.safetensors")["vectors"].numpy()
    before = load_vectors(source / BEFORE_VALIDATION_FILE)
    catalogue = ItemEmbeddings(
        published.item_ids, published.first_seen, vectors, {}, before_validation=before
    )
    codebook = out_dir / "codebook"
    codebook.mkdir(parents=True)
    with reproducible(run.runtime):
        tokenize_catalogue(catalogue, run.night.test_day, run.settings.tokenizer, codebook)
        made = extend_tokenized(codebook, None, catalogue).ids
    rows = torch.from_numpy(made.index_of(published.item_ids))
    assert (rows >= 0).all(), "every item of the nightly run has an ID"
    ids = replace(
        made,
        item_ids=published.item_ids,
        codes=made.codes[rows],
        first_seen=published.first_seen,
    )
    TokenizedCatalogue(ids, vectors, before).save(out_dir)


def align_variant(run: VariantRun, start: VariantFiles, out_dir: Path) -> VariantFiles:
    """Train a pretrained variant further: rounds of preferences, or one of elite sessions.

    Args:
        run: The variant.
        start: Files of the variant that it starts from.
        out_dir: Gets the checkpoint.
    """
    inputs = RoundInputs(
        session_dataset=start.session_dataset,
        semantic_ids=start.semantic_ids,
        start=start.checkpoint,
        reward_model=run.night.files["reward_model"],
        test_day=run.night.test_day,
    )
    train_further = _train_on_elites if run.variant.elite_share else _align
    train_further(run, inputs, out_dir)
    return replace(start, checkpoint=out_dir)


def _align(run: VariantRun, inputs: RoundInputs, out_dir: Path) -> None:
    alignment = run.settings.alignment
    if run.variant.sample_share:
        users = max(1, round(run.variant.sample_share * len(inputs.sessions("train"))))
        alignment = replace(alignment, sample_users=users)
    with TemporaryDirectory() as work:
        for number in range(1, alignment.rounds + 1):
            run.on_progress(f"round {number} of {alignment.rounds}")
            trained = out_dir if number == alignment.rounds else Path(work) / f"round_{number}"
            trained.mkdir(exist_ok=True)
            preferences = round_preferences(
                inputs,
                run.settings.decoding,
                with_sample(alignment, number),
                runtime=run.runtime,
                score=_scoring(run, inputs),
            )
            fit_round(
                inputs, preferences, alignment, trained, execution=Execution(runtime=run.runtime)
            )
            inputs = replace(inputs, start=trained)


def _scoring(run: VariantRun, inputs: RoundInputs) -> ScoreCandidates:
    if not run.variant.true_pairs:
        return scored_candidates
    assert run.source is not None, "an oracle reads the simulated app"
    return scored_by_truth(TrueWatch.of(run.source, inputs.ids, inputs.test_day))


def _train_on_elites(run: VariantRun, inputs: RoundInputs, out_dir: Path) -> None:
    share = run.variant.elite_share
    assert share is not None
    with reproducible(run.runtime):
        elites = elite_sessions(inputs, run.settings, share, runtime=run.runtime)
    alignment = run.settings.alignment
    # of the others the start has learned the validation day
    cases = load_held_out_cases(
        inputs.session_dataset,
        inputs.ids,
        inputs.model,
        most=alignment.gate_recall_cases,
        seed=alignment.seed,
    )
    neighbours = inputs.model.neighbours
    with TemporaryDirectory() as scratch:
        fit_generator(
            run.settings.training,
            run.settings.model,
            PretrainingData(
                train=elites,
                valid=inputs.sessions("valid", held_out=True),
                semantic_ids=inputs.ids,
                vectors=load_file(inputs.semantic_ids / "vectors.safetensors")["vectors"],
                list_cases=cases,
                # of the days that `cases` are not among
                item_neighbours=None if neighbours is None else lambda splits: neighbours,
            ),
            out_dir=out_dir,
            scratch=Path(scratch),
            initial=inputs.model.cpu(),
            runtime=run.runtime,
        )
