"""Which nightly runs before help to choose the weight of the reward in served lists."""

from pathlib import Path

from assets.alignment import BY_WEIGHT, rounds_before
from onerec.artifacts import ArtifactStore
from onerec.config import AlignmentConfig


def test_rounds_before_of_the_same_settings_help_to_choose_the_weight(tmp_path: Path):
    store = ArtifactStore(str(tmp_path))
    settings = AlignmentConfig(reward_weight_days=4)
    measured = {"users": 9, "ndcg": {"0.0": 0.1}}

    def night(
        day: str, *, dpo: int = 1, reward: int = 1, model: int = 1, by_weight: dict = measured
    ):
        made_with = {"reward_model": reward, "pretrained_checkpoint": model, "dpo_checkpoint": dpo}
        for name, config in made_with.items():
            made = {"setting": config}
            with store.write(name, day, config=made, upstream={}, code_version="1") as draft:
                (draft.path / "weights").write_text(f"{name} {day}")
                if name == "dpo_checkpoint":
                    draft.metadata[BY_WEIGHT] = by_weight

    night("2026-06-06")
    night("2026-06-07", dpo=2)
    night("2026-06-08")
    night("2026-06-09")
    night("2026-06-10", reward=2)
    night("2026-06-11")

    def before(day: str) -> list[str]:
        found = rounds_before(store, "dpo_checkpoint", day, {"setting": 1}, settings)
        return [artifact.partition for artifact in found]

    assert before("2026-06-09") == ["2026-06-06", "2026-06-08"]
    assert before("2026-06-10") == []  # its reward model has other settings
    assert before("2026-06-11") == ["2026-06-08", "2026-06-09"]  # the 6th is too old by then
    night("2026-06-08", by_weight={"users": 0, "ndcg": {}})
    night("2026-06-10", model=2)
    assert before("2026-06-11") == ["2026-06-09"]
    pointer = tmp_path / "dpo_checkpoint" / "2026-06-09"
    (next(p for p in pointer.iterdir() if p.is_dir()) / "manifest.json").write_text("{")
    assert before("2026-06-11") == []
