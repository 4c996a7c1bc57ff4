"""Evaluates a variant on the nightly run's cases, candidates and reward models."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from experiments.nightly_artifacts import PublishedNightlyRun
from experiments.variants.training import VariantFiles, VariantRun
from onerec.artifacts import read_json, write_json
from onerec.evaluation.data import EvaluationData, EvaluationFiles, load_evaluation_data
from onerec.evaluation.generators import SessionGenerator, load_generator
from onerec.evaluation.measure import measure, summarise
from onerec.evaluation.metric_table import Metric, write_case_metrics
from onerec.evaluation.protocol import EvaluationProtocol
from onerec.evaluation.systems import System
from onerec.ranked_lists import RankedLists
from onerec.tokenizer.semantic_ids import load_semantic_ids
from onerec.training import reproducible

SYSTEM = "variant"
"""Name of the measured system in a result's files."""
FACTS = "facts.json"
"""Metrics of the pretraining that a result keeps."""
TRACKED = ("kl_to_start", "legal_mass", "margin", "accuracy", "chosen_logp_change", "reward_spread")
"""Metrics of the last epoch of alignment that a result keeps, as `alignment_<name>`."""
HEADLINE = ("recall@10", "ndcg@10", "evaluator_reward", "training_reward")


def evaluate_variant(run: VariantRun, files: VariantFiles, out_dir: Path) -> dict[str, float]:
    """Measure a checkpoint on the nightly run's cases.

    Args:
        run: The variant.
        files: Its checkpoint and semantic IDs.
        out_dir: Gets the files of an `offline_metrics` artifact for one system named `variant`, and
            `facts.json` (metrics of its training).

    Returns:
        Some of its metrics.
    """
    data, decoding = _evaluation_data(run.night, run.device), run.night.base.decoding
    if files.semantic_ids != run.night.files["semantic_ids"]:  # rows are the same, tokens are not
        data = replace(data, semantic_ids=load_semantic_ids(files.semantic_ids))
    generator = load_generator(
        files.checkpoint, data.semantic_ids, decoding, watches=data.watches, device=run.device
    )
    same_length = generator.model.session_items == data.session_items
    run.on_progress(f"measuring {len(data.user_ids)} cases")
    with reproducible(run.runtime):
        result = measure(data, System(generator if same_length else _ListsOnly(generator)))
    summarise(data, {SYSTEM: result}).save(out_dir)
    write_case_metrics(out_dir, data.user_ids, {SYSTEM: result.values})
    EvaluationProtocol.of(data).save(out_dir)
    write_json(out_dir / FACTS, _training_facts(files.checkpoint))
    return {name: float(np.nanmean(result.values[Metric(name)])) for name in HEADLINE}


@dataclass(frozen=True)
class _ListsOnly:
    """A generator with another session length than the run's, whose list counts as one session."""

    generator: SessionGenerator

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`."""
        return self.generator.rank(histories, top_k, exclude, candidates, attributes)


def _evaluation_data(night: PublishedNightlyRun, device: str) -> EvaluationData:
    files = EvaluationFiles(
        session_dataset=night.files["session_dataset"],
        semantic_ids=night.files["semantic_ids"],
        baselines=night.files["baselines"],
        checkpoint=night.files["pretrained_checkpoint"],
        evaluator=night.files["evaluator_model"],
        reward_model=night.files["reward_model"],
    )
    base = night.base
    return load_evaluation_data(files, night.test_day, base.evaluation, base.reward, device=device)


def _training_facts(checkpoint: Path) -> dict[str, float]:
    """Metrics reported by pretraining or by the last alignment round."""
    file = checkpoint / "history.json"
    history = read_json(file) if file.exists() else {}
    if "summary" in history:
        return {name: history["summary"][name] for name in ("train_sessions", "best_valid_loss")}
    last = history["epochs"][-1] if history else {}
    return {f"alignment_{name}": last[name] for name in TRACKED if name in last}
