"""A launchpad shows the fields that act in its asset, with choices, ranges and documentation."""

import ast
import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dagster as dg
import pydantic
import pytest

from assets import (
    alignment,
    baselines,
    champion,
    evaluation,
    item_embeddings,
    reward,
    serving,
    tokenizer,
    training,
)
from assets.code_version import reachable_code
from assets.raw import CatalogueLaunchpad
from assets.session_dataset import SessionDatasetLaunchpad
from assets.session_dataset_checks import SuitesLaunchpad
from assets.sessions import RejectionLaunchpad, SessionLaunchpad
from assets.support import PIPELINE, all_but, launchpad, to_core
from onerec.config import PRESETS, PipelineConfig, SettingError
from onerec_dagster.definitions import defs
from resources.settings import CHECKOUT

LAUNCHPADS = {
    ("assets.item_embeddings", "item_embeddings"): (
        "embeddings", item_embeddings.EmbeddingLaunchpad,
    ),
    ("assets.tokenizer", "codebook"): ("tokenizer", tokenizer.TokenizerLaunchpad),
    ("assets.training", "pretrained_checkpoint"): ("training", training.PretrainLaunchpad),
    ("assets.reward", "reward_model"): ("reward", reward.RewardLaunchpad),
    ("assets.reward", "evaluator_model"): ("reward", reward.EvaluatorLaunchpad),
    ("assets.alignment", "pairs_of_round"): ("alignment", alignment.PairsLaunchpad),
    ("assets.alignment", "checkpoint_of_round"): ("alignment", alignment.AlignmentLaunchpad),
    ("assets.baselines", "baselines"): ("evaluation", baselines.BaselinesLaunchpad),
    ("assets.evaluation", "offline_metrics"): ("evaluation", evaluation.MetricsLaunchpad),
    ("assets.champion", "champion"): ("evaluation", champion.PromotionLaunchpad),
    ("assets.serving", "recommendations"): ("decoding", serving.ServingLaunchpad),
}  # fmt: skip
"""Asset -> the stage of the fields at the top of its launchpad, and the launchpad."""
GRAPH = {("alignment", "rounds")}
"""Settings that shape the graph, so that no run can change them."""
OF_A_RUN = {
    ("degraded", "reason"),
    ("degraded", "sessions_until"),
    ("by_hand", "serve"),
    ("by_hand", "reason"),
}
"""What a run says of itself, which no preset holds."""
READ_AS = {
    **{
        f"weight_{part}": "scalar_weights"
        for part in ("swt", "vtr", "wtr", "ltr", "watch_seconds", "watch_share")
    },
    "baselines": "systems",
    "cutoffs": "lengths",
}
"""Fields that are read through a property or by a name that is put together."""


def fields_of(stage: str, shown: type[dg.Config]) -> Iterator[tuple[str, str]]:
    """(stage, field) of all that a launchpad shows; a section in it is named after its stage."""
    for name, field in shown.model_fields.items():
        if isinstance(field.default, dg.Config):
            yield from fields_of(name, type(field.default))
        else:
            yield stage, name


def test_every_setting_is_in_a_launchpad():
    shown = {pair for stage, config in LAUNCHPADS.values() for pair in fields_of(stage, config)}
    window = {field.name for field in dataclasses.fields(PIPELINE.window)}
    for config in (
        SessionLaunchpad,
        RejectionLaunchpad,
        SessionDatasetLaunchpad,
        CatalogueLaunchpad,
        SuitesLaunchpad,
    ):
        for name in config.model_fields:
            shown.add(("window" if name in window else "sessions", name))
    every = {
        (stage.name, field.name)
        for stage in dataclasses.fields(PipelineConfig)
        for field in dataclasses.fields(getattr(PIPELINE, stage.name))
    }
    assert shown - OF_A_RUN == every - GRAPH


@cache
def names_in(module: str) -> frozenset[str]:
    """What a module reads as an attribute."""
    base = CHECKOUT.joinpath(*module.split("."))
    file = base.with_suffix(".py") if base.with_suffix(".py").exists() else base / "__init__.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))


@pytest.mark.parametrize(("asset", "launched"), LAUNCHPADS.items())
def test_a_field_that_is_shown_is_read(asset, launched):
    """By name: a module that the asset runs reads an attribute of this name."""
    modules = {unit.module for unit in reachable_code(*asset)}
    names = {name for module in modules for name in names_in(module)} | {"scalar_weights"}
    unread = [n for _, n in fields_of(*launched) if READ_AS.get(n, n) not in names]
    assert unread == []


def test_a_field_that_is_changed_reaches_the_settings_of_its_stage():
    promotion = champion.PromotionLaunchpad(recall_tolerance=0.25)
    assert to_core(promotion, PIPELINE.evaluation).recall_tolerance == 0.25
    lists = serving.ListsLaunchpad(list_length=7)
    assert to_core(lists, PIPELINE.serving).list_length == 7


def test_session_sql_shows_the_variables_of_its_sql():
    files = Path(CHECKOUT / "dbt_sessions").rglob("*.sql")
    sql = "".join(file.read_text() for file in files)
    for name in SessionLaunchpad.model_fields.keys() - {"window_days"}:  # which days are built
        assert f'var("{name}"' in sql or f"var('{name}'" in sql, name


def test_a_launchpad_has_defaults_documentation_and_ranges_of_the_core():
    shown = launchpad(PRESETS["small"].tokenizer, "method", "codebook_size")
    assert set(shown.model_fields) == {"method", "codebook_size"}
    assert shown.model_fields["codebook_size"].default == 256
    assert shown.model_fields["codebook_size"].description.startswith("K: codes per level")
    with pytest.raises(pydantic.ValidationError, match="greater than or equal to 0"):
        shown.model_validate({"codebook_size": -1})


def test_hidden_fields_keep_the_value_of_the_pipeline():
    small = PRESETS["small"].tokenizer
    config = launchpad(small, "codebook_size").model_validate({"codebook_size": 64})
    assert to_core(config, small) == dataclasses.replace(small, codebook_size=64)


def test_fields_that_do_not_go_together_are_refused():
    config = alignment.PairsLaunchpad.model_validate({"method": "sdpo", "pairs": "feedback"})
    with pytest.raises(SettingError, match="no group of sessions"):
        to_core(config, PIPELINE.alignment)


def test_an_unknown_field_is_refused():
    with pytest.raises(SettingError, match="names='codebook': use fields of TokenizerConfig"):
        launchpad(PIPELINE.tokenizer, "codebook")
    assert "seed" not in all_but(PIPELINE.tokenizer, "seed")


def test_dagster_offers_choices():
    """As an enum, which the launchpad completes and a run's request is checked against."""
    job = defs.resolve_job_def("nightly")

    def request(architecture: str) -> dict:
        model = {"model": {"architecture": architecture}}
        return {"ops": {"pretrained_checkpoint": {"config": model}}}

    assert dg.validate_run_config(job, request("lazy_decoder"))
    with pytest.raises(dg.DagsterInvalidConfigError, match="architecture"):
        dg.validate_run_config(job, request("rnn"))
