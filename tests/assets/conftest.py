"""A small nightly run that was evaluated; tests that change it change a copy."""

from pathlib import Path

import dagster as dg
import pytest

from onerec.artifacts import ArtifactStore
from tests.assets.small_night import ASSETS, CHECKS, DAY, RUN, generator, publish, resources
from tests.core.evaluation import night as small


@pytest.fixture(scope="session")
def night_home(tmp_path_factory) -> Path:
    """Everything that evaluation reads."""
    root = tmp_path_factory.mktemp("home")
    store = ArtifactStore(str(root / "artifacts"))
    publish(store, "session_dataset", lambda d: small.write_sessions(d, small.rows()))
    publish(store, "semantic_ids", lambda d: small.write_catalogue(d, small.catalogue()))
    publish(store, "pretrained_checkpoint", generator(0))
    publish(store, "dpo_checkpoint", generator(1))
    publish(store, "reward_model", lambda d: small.write_reward(d, seed=2))
    publish(store, "evaluator_model", lambda d: small.write_reward(d, seed=3, part="evaluator"))
    return root


@pytest.fixture(scope="session")
def night_result(night_home: Path) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [*ASSETS, *CHECKS],
            partition_key=DAY,
            resources=resources(night_home),
            run_config=RUN,
            instance=instance,
        )
