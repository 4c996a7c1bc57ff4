"""Checks of preference pairs, and of what a round of alignment reached."""

from collections.abc import Iterator
from datetime import date

import dagster as dg

from assets.support import check_specs
from resources.stores import Artifacts

OF_PAIRS = {
    "chosen_reward_above_rejected": "There are pairs, and in each the chosen session has more "
    "reward; of groups for GRPO and ECPO not all have one reward throughout.",
    "legal_pairs": "Sessions are complete, without repeats, of items seen before day D.",
}
OF_TRAINING = {
    "dpo_margin_positive": "On pairs held out, the chosen session gained on the rejected one.",
    "chosen_not_displaced": "The chosen sessions did not become less probable: DPO can push both "
    "of a pair down, in favour of sessions without a reward.",
}
GATES = {
    "evaluator_reward_rises": "On the validation day, by the evaluator; otherwise the checkpoint "
    "is the one before the round.",
    "recall_within_tolerance": "Recall@10 of the held-out users on the validation day has not "
    "fallen by more than the allowed share; otherwise the checkpoint is the one before the round.",
}
"""A round that fails one is not published: its checkpoint is the one before it."""


def checks_of_pairs(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    """Blocking checks of the pairs, before anything trains on them."""
    name = asset.key.to_user_string()

    @dg.multi_asset_check(
        name=f"{name}_checks",
        specs=check_specs(asset, OF_PAIRS, blocking=True),
    )
    def checks(
        context: dg.AssetCheckExecutionContext, artifacts: Artifacts
    ) -> Iterator[dg.AssetCheckResult]:
        import torch

        from onerec.alignment.pairs import illegal_sessions
        from onerec.alignment.preferences import in_wrong_order, load_preferences
        from onerec.session_dataset.reader import read_session_config
        from onerec.tokenizer.semantic_ids import load_semantic_ids

        day = context.partition_key
        ids = load_semantic_ids(artifacts.store.latest("semantic_ids", day).path)
        sessions = read_session_config(artifacts.store.latest("session_dataset", day).path)
        pairs = load_preferences(
            artifacts.store.latest(name, day).path,
            ids,
            history_length=sessions.history_length,
            session_items=sessions.session_items,
        )
        wrong = in_wrong_order(pairs)
        yield dg.AssetCheckResult(
            passed=len(pairs) > 0 and wrong == 0,
            check_name="chosen_reward_above_rejected",
            asset_key=asset.key,
            metadata={"pairs": len(pairs), "in the wrong order": wrong},
        )
        allowed = ids.candidates(date.fromisoformat(day))
        illegal = illegal_sessions(pairs.sessions, torch.from_numpy(allowed))
        yield dg.AssetCheckResult(
            passed=illegal == 0,
            check_name="legal_pairs",
            asset_key=asset.key,
            metadata={"illegal pairs": illegal},
        )

    return checks


def checks_of_checkpoint(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    """Warnings about a round."""
    name = asset.key.to_user_string()

    @dg.multi_asset_check(
        name=f"{name}_checks",
        specs=check_specs(asset, OF_TRAINING | GATES),
    )
    def checks(
        context: dg.AssetCheckExecutionContext, artifacts: Artifacts
    ) -> Iterator[dg.AssetCheckResult]:
        from onerec.artifacts import read_json

        directory = artifacts.store.latest(name, context.partition_key).path
        last = read_json(directory / "history.json")["epochs"][-1]
        yield dg.AssetCheckResult(
            passed=last["margin"] > 0,
            check_name="dpo_margin_positive",
            asset_key=asset.key,
            metadata={"margin": last["margin"], "accuracy": last["accuracy"]},
        )
        yield dg.AssetCheckResult(
            passed=last["chosen_logp_change"] >= 0,
            check_name="chosen_not_displaced",
            asset_key=asset.key,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"change of the chosen log-probability": last["chosen_logp_change"]},
        )
        decision = read_json(directory / "round.json")
        for gate in GATES:
            yield dg.AssetCheckResult(
                passed=decision["gates"].get(gate, True),
                check_name=gate,
                asset_key=asset.key,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"published": decision["published"], **decision["numbers"]},
            )

    return checks
