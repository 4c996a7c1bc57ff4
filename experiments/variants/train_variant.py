"""Making a variant of a published night: what it changes again, the rest reused, then measured.

Every step lies in a directory of its own, named by its key, so that variants share what they agree
in, and a killed experiment goes on where it stopped.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from experiments.nightly_artifacts import PublishedNight
from experiments.variants.comparison import FACTS, SYSTEM
from experiments.variants.session_criteria import recut_sessions
from experiments.variants.steps import Step, Variant, earliest_made, plan, with_share
from onerec.alignment.candidates import sample_contexts, scored_candidates
from onerec.alignment.preferences import save_preferences
from onerec.alignment.rounds import (
    RoundFiles,
    decide_round,
    fit_round,
    round_preferences,
    with_sample,
)
from onerec.artifacts import read_json, write_json
from onerec.embeddings.item_embeddings import ItemEmbeddings
from onerec.evaluation.data import EvaluationData, EvaluationFiles, load_evaluation_data
from onerec.evaluation.generators import SessionGenerator, load_generator
from onerec.evaluation.measure import measure, summarise
from onerec.evaluation.metric_table import Metric, write_case_metrics
from onerec.evaluation.protocol import EvaluationProtocol
from onerec.evaluation.systems import System
from onerec.generation import Trie
from onerec.ranked_lists import RankedLists
from onerec.reward import load_ensemble
from onerec.session_dataset.generator_sessions import SessionTensors, load_session_tensors
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

STEP = "step.json"
TRACKED = ("kl_to_start", "legal_mass", "margin", "accuracy", "chosen_logp_change", "reward_spread")
"""Numbers of the last epoch of alignment that a result keeps, as `alignment_<name>`."""


@dataclass(frozen=True)
class VariantReport:
    """What came of a variant.

    Attributes:
        seconds: What making it took, shared steps included; measuring is not.
        earliest: The first step that was made again; None when all of it was published.
        headline: A few of its numbers.
    """

    seconds: float
    earliest: str | None
    headline: dict[str, float]


@dataclass
class Workbench:
    """Where variants of one night are made, one after the other.

    Attributes:
        published: The night.
        work: Directory of the steps; it may be deleted when nothing runs.
        runtime: Hardware and threads.
        device: Where generators run.
        on_progress: Called with a line of text now and then.
    """

    published: PublishedNight
    work: Path
    runtime: Runtime = field(default_factory=Runtime)
    device: str = "cpu"
    on_progress: Callable[[str], None] = lambda message: None

    @cached_property
    def data(self) -> EvaluationData:
        """What every variant is measured with."""
        published, base = self.published.files, self.published.base
        files = EvaluationFiles(
            session_dataset=published["session_dataset"],
            semantic_ids=published["semantic_ids"],
            baselines=published["baselines"],
            checkpoint=published["pretrained_checkpoint"],
            evaluator=published["evaluator_model"],
            reward_model=published["reward_model"],
        )
        return load_evaluation_data(files, self.published.test_day, base.evaluation, base.reward)


def run_variant(bench: Workbench, variant: Variant, out_dir: Path) -> VariantReport:
    """Make a variant and measure it.

    Args:
        bench: The night and the place to work.
        variant: The variant.
        out_dir: Gets what an `offline_metrics` artifact holds, with one system named `variant`;
            `facts.json` (numbers of its training) and `plan.json` (each step and whether it was
            made).

    Raises:
        ValueError: The variant asks for what the night does not hold.
    """
    published = bench.published
    steps = plan(variant, published.base, published.versions)
    making = _Making(bench, variant)
    for step in steps:
        making.take(step)
    last = steps[-1].name
    data = bench.data
    tokens = making.directory["tokens"]
    if tokens != published.files["semantic_ids"]:  # rows are the same, tokens are not
        data = replace(data, semantic_ids=load_semantic_ids(tokens))
    generator = load_generator(
        making.directory[last], data.semantic_ids, published.base.decoding, device=bench.device
    )
    bench.on_progress(f"{variant.name}, seed {variant.seed}: {len(data.user_ids)} cases")
    same_length = generator.model.session_items == data.session_items
    with reproducible(bench.runtime):
        result = measure(data, System(generator if same_length else _OnlyLists(generator)))
    out_dir.mkdir(parents=True, exist_ok=True)
    summarise(data, {SYSTEM: result}).save(out_dir)
    write_case_metrics(out_dir, data.user_ids, {SYSTEM: result.values})
    EvaluationProtocol.of(data).save(out_dir)
    write_json(out_dir / FACTS, making.facts)
    write_json(
        out_dir / "plan.json",
        [{"step": s.name, "made": s.made, "settings": s.settings} for s in steps],
    )
    names = ("recall@10", "ndcg@10", "evaluator_reward", "training_reward")
    headline = {name: float(np.nanmean(result.values[Metric(name)])) for name in names}
    return VariantReport(making.seconds, earliest_made(steps), headline)


@dataclass(frozen=True)
class _OnlyLists:
    """A generator of another session length than the night's: its list counts as one session."""

    generator: SessionGenerator

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`."""
        return self.generator.rank(histories, top_k, exclude, candidates)


class _Making:
    """The steps of one variant, made or found."""

    def __init__(self, bench: Workbench, variant: Variant) -> None:
        self.bench, self.variant = bench, variant
        self.files = bench.published.files
        self.stages = variant.stages(bench.published.base)
        self.directory: dict[str, Path] = {}
        self.facts: dict[str, float] = {}
        self.seconds = 0.0

    def take(self, step: Step) -> None:
        """Find a step or make it, and keep where it lies and what it says."""
        kind = step.name.rstrip("0123456789").rstrip("_")
        if not step.made:
            self.directory[step.name] = self.files[PUBLISHED_AS[kind]]
        else:
            made = self.bench.work / f"{kind}-{step.key}"
            if not made.exists():
                self.bench.on_progress(
                    f"{self.variant.name}, seed {self.variant.seed}: {step.name}"
                )
                with _aside(self.bench.work, made) as draft:
                    began = time.monotonic()
                    getattr(self, f"_make_{kind}")(step, draft)
                    write_json(draft / STEP, {"seconds": time.monotonic() - began})
            self.directory[step.name] = made
            self.seconds += read_json(made / STEP)["seconds"]
        history = self.directory[step.name] / "history.json"
        if kind in ("pretraining", "elite") and history.exists():
            summary = read_json(history)["summary"]
            self.facts |= {name: summary[name] for name in ("train_sessions", "best_valid_loss")}
        if kind == "alignment":
            last = read_json(history)["epochs"][-1]
            self.facts |= {f"alignment_{name}": last[name] for name in TRACKED if name in last}

    def _make_sessions(self, step: Step, draft: Path) -> None:
        base = self.bench.published.base.sessions
        source, day = self.files["session_dataset"], self.bench.published.test_day
        counts = recut_sessions(source, draft, self.stages.sessions, base, day)
        write_json(draft / "counts.json", counts)

    def _make_tokens(self, step: Step, draft: Path) -> None:
        """A tokenizer version of its own on the night's vectors; items keep their rows."""
        published = load_semantic_ids(self.files["semantic_ids"])
        vectors = load_file(self.files["semantic_ids"] / "vectors.safetensors")["vectors"]
        catalogue = ItemEmbeddings(published.item_ids, published.first_seen, vectors.numpy(), {})
        opened = draft / "opened"
        opened.mkdir()
        with reproducible(self.bench.runtime):
            tokenize_catalogue(
                catalogue, self.bench.published.test_day, self.stages.tokenizer, opened
            )
            made = extend_tokenized(opened, None, catalogue).ids
        rows = torch.from_numpy(made.index_of(published.item_ids))
        assert (rows >= 0).all(), "every item of the night has an ID"
        ids = replace(
            made,
            item_ids=published.item_ids,
            codes=made.codes[rows],
            first_seen=published.first_seen,
        )
        TokenizedCatalogue(ids, vectors.numpy()).save(draft)

    def _make_pretraining(self, step: Step, draft: Path) -> None:
        """From random weights: a variant has no night before it."""
        job = TrainingJob(
            session_dataset=self.directory["sessions"],
            semantic_ids=self.directory["tokens"],
            history_length=self.stages.sessions.history_length,
            session_items=self.stages.sessions.session_items,
            model=self.stages.model,
            training=self.stages.training,
            runtime=self.bench.runtime,
        )
        scratch = self.bench.work / f"unfinished-{step.key}"
        train(job, out_dir=draft, scratch=scratch)
        shutil.rmtree(scratch)

    def _make_elite(self, step: Step, draft: Path) -> None:
        """A further step of the cross-entropy method (see `elite_sessions`)."""
        files = self._round_files(step)
        ids = files.ids()
        model, _ = files.generator(ids)
        sessions = files.sessions("train", ids, model)
        contexts = sample_contexts(sessions, len(sessions), step.settings["seed"])
        with reproducible(self.bench.runtime):
            elite = self._elite_sessions(files, contexts)
        scratch = self.bench.work / f"unfinished-{step.key}"
        fit_generator(
            self.stages.training,
            self.stages.model,
            PretrainingData(
                train=elite, valid=files.sessions("valid", ids, model), semantic_ids=ids
            ),
            out_dir=draft,
            scratch=scratch,
            initial=model,
            runtime=self.bench.runtime,
        )
        shutil.rmtree(scratch)

    def _elite_sessions(self, files: RoundFiles, contexts: SessionTensors) -> SessionTensors:
        """The share of highest training reward among the sessions generated for each context."""
        ids, reward_models = files.ids(), load_ensemble(files.reward_model)
        decoding = self.stages.decoding
        kept = max(1, round(self.variant.elite_share * decoding.candidates))
        parts = []
        for made in scored_candidates(
            files.generator(ids)[0],
            reward_models,
            files.vectors(),
            contexts,
            ids.codes,
            Trie.build(ids.codes, ids.codebook_size, files.allowed(ids)),
            num_candidates=decoding.candidates,
            decoding=decoding,
            reward=reward_models[0].config,
            alignment=self.stages.alignment,
            device=self.bench.device,
            on_batch=lambda done, total: None,
        ):
            rewards = made.rewards.masked_fill(~made.logp.isfinite(), -torch.inf)
            best = rewards.argsort(dim=1, descending=True, stable=True)[:, :kept]
            exist = rewards.gather(1, best).isfinite()
            items = made.items.gather(1, best[..., None].expand(-1, -1, made.items.shape[2]))
            parts.append((made.row.repeat_interleave(exist.sum(1)), items[exist]))
        row, items = (torch.cat(part) for part in zip(*parts, strict=True))
        return replace(
            contexts,
            user=contexts.user[row],
            history=contexts.history[row],
            targets=items.int(),
            is_good=contexts.is_good[row],
            date=contexts.date[row.numpy()],
        )

    def _make_pairs(self, step: Step, draft: Path) -> None:
        files = self._round_files(step)
        stages = with_share(self.stages, self.variant.sample_share, self._num_good_sessions())
        made, ids = round_preferences(
            files,
            stages.decoding,
            with_sample(stages.alignment, step.settings["round"]),
            runtime=self.bench.runtime,
            device=self.bench.device,
        )
        save_preferences(made, ids.item_ids, draft)

    def _make_alignment(self, step: Step, draft: Path) -> None:
        files = self._round_files(step)
        pairs = next(self.directory[name] for name in step.needs if name.startswith("pairs_"))
        settings, runtime = self.stages.alignment, self.bench.runtime
        report = fit_round(files, pairs, settings, draft, runtime=runtime)
        if settings.gate_cases:
            decide_round(
                files,
                self.files["evaluator_model"],
                report.model,
                draft,
                settings,
                decoding=self.bench.published.base.decoding,
                evaluation=self.bench.published.base.evaluation,
                runtime=runtime,
                device=self.bench.device,
            )

    def _num_good_sessions(self) -> int:
        sessions = self.stages.sessions
        return len(
            load_session_tensors(
                self.directory["sessions"],
                "train",
                load_semantic_ids(self.directory["tokens"]),
                history_length=sessions.history_length,
                session_items=sessions.session_items,
                good_only=True,
            )
        )

    def _round_files(self, step: Step) -> RoundFiles:
        """What a step after pretraining reads; it starts from the checkpoint that it needs."""
        starts = ("pretraining", "elite", "alignment")
        start = next(name for name in step.needs if name.startswith(starts))
        return RoundFiles(
            session_dataset=self.directory["sessions"],
            semantic_ids=self.directory["tokens"],
            start=self.directory[start],
            reward_model=self.files["reward_model"],
            test_day=self.bench.published.test_day,
        )


PUBLISHED_AS = {
    "sessions": "session_dataset",
    "tokens": "semantic_ids",
    "pretraining": "pretrained_checkpoint",
    "pairs": "preference_pairs",
    "alignment": "dpo_checkpoint",
}
"""The artifact that a step is in a published night."""


@contextmanager
def _aside(work: Path, target: Path) -> Iterator[Path]:
    """A directory that becomes `target` in one step when the block ends well."""
    draft = work / f".{target.name}-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        if not target.exists():  # else another process made the same meanwhile
            os.rename(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
