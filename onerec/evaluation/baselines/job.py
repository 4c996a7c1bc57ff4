"""The fit of all baselines from artifact directories."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from onerec.artifacts import read_json, write_json
from onerec.config import EvaluationConfig, Runtime, TrainingConfig
from onerec.evaluation.baselines.registry import (
    BaselineInputs,
    fit_baselines,
    fit_item_knn_prior,
    fit_learned,
)
from onerec.evaluation.ndcg_by_weight import Earlier
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.reader import read_session_config
from onerec.tokenizer.semantic_ids import load_semantic_ids
from onerec.tokenizer.tokenized_catalogue import load_tokenized
from onerec.training.runtime import process_rank

FITTED_ON = "fitted_on.json"
ONE_PROCESS_FITS = ("cascade",)
"""Learned systems that no process but the first fits: they are not trained batch by batch."""


@dataclass(frozen=True, kw_only=True)
class BaselinesJob:
    """What to fit on what.

    Attributes:
        session_dataset: Files of a `session_dataset` artifact.
        semantic_ids: Files of a `semantic_ids` artifact, with item vectors.
        test_day: Day D.
        evaluation: Which baselines, and how they are fitted.
        training: How the generator learns and counts the newest days, for sequence baselines.
        runtime: Hardware.
        earlier: What nightly runs before measured of the recency priors' weights, by system.
        night_before: See `BaselineInputs`; `is_comparable` says whether it can be one.
    """

    session_dataset: Path
    semantic_ids: Path
    test_day: date
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    runtime: Runtime = field(default_factory=Runtime)
    earlier: Earlier = field(default_factory=dict)
    night_before: Path | None = None

    def run(self, out_dir: Path, *, scratch: Path, log: Callable[[str], None]) -> dict[str, float]:
        """Fit and write them; see `fit_baselines` and `fit_learned`."""
        inputs, config = self._inputs(scratch), self.evaluation
        first = process_rank(self.runtime) == 0
        if not first:
            names = (name for name in config.systems if name not in ONE_PROCESS_FITS)
            config = replace(config, baselines=",".join(names))
        seconds: dict[str, float] = {}
        learned = fit_learned(
            inputs,
            config,
            on_progress=log,
            on_fitted=lambda name, spent: seconds.update({f"seconds of {name}": spent}),
        )
        if first:
            day = self.test_day
            window = load_interactions(inputs.session_dataset, inputs.semantic_ids, test_day=day)
            counted = fit_baselines(window, inputs.candidates, neighbours=config.neighbours)
            replace(
                counted,
                learned=learned,
                newest_watches=inputs.newest_watches,
                item_knn_prior=fit_item_knn_prior(inputs, config),
            ).save(out_dir)
            write_json(out_dir / FITTED_ON, self.fitted_on())
        return seconds

    def fitted_on(self) -> dict[str, Any]:
        """What has to be the same where the models of another day rank for this one."""
        ids = load_semantic_ids(self.semantic_ids)
        return {
            "tokenizer_version": ids.tokenizer_version,
            "history_length": read_session_config(self.session_dataset).history_length,
            "items": len(ids),
        }

    def _inputs(self, scratch: Path) -> BaselineInputs:
        tokenized, config = load_tokenized(self.semantic_ids), self.evaluation
        return BaselineInputs(
            session_dataset=self.session_dataset,
            semantic_ids=tokenized.ids,
            candidates=tokenized.ids.candidates(self.test_day),
            test_day=self.test_day,
            history_length=read_session_config(self.session_dataset).history_length,
            vectors=tokenized.vectors,
            last_phase=self.training if config.baseline_last_phase else None,
            recency_days=self.training.recency_days if config.baseline_recency else None,
            runtime=self.runtime,
            earlier=self.earlier,
            night_before=self.night_before,
            scratch=scratch if self.runtime.processes > 1 else None,
        )


def is_comparable(baselines: Path, job: BaselinesJob) -> bool:
    """Whether the sequence models of an earlier artifact read the histories and know the items that
    those of a job do: only inside a tokenizer version items keep their places."""
    stored = baselines / FITTED_ON
    if not stored.exists():  # an artifact of before
        return False
    theirs, ours = read_json(stored), job.fitted_on()
    return theirs == ours | {"items": theirs["items"]} and theirs["items"] <= ours["items"]
