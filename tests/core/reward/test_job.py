"""What the validation day chooses of a reward model has not seen that day's co-watching."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from onerec.artifacts import MANIFEST, write_json
from onerec.config import Runtime
from onerec.reward.job import RewardJob
from tests.core.evaluation import night as small


def test_it_learns_with_vectors_before_validation(tmp_path: Path) -> None:
    ids = small.catalogue()
    small.write_sessions(
        tmp_path / "session_dataset",
        [
            small.session(
                f"u{user}",
                small.DAY - timedelta(days=days),
                list(ids.item_ids[user % 5 : user % 5 + 3]),
                history=list(ids.item_ids[4:7]),
                watched=[(user + days) % 3 != n for n in range(3)],
            )
            for user in range(small.NUM_USERS)
            for days in (3, 2, 1)
        ],
    )
    lengths = {"history_length": small.HISTORY, "session_items": small.SESSION}
    write_json(tmp_path / "session_dataset" / MANIFEST, {"config": {"sessions": lengths}})
    night, blind = tmp_path / "night", tmp_path / "blind"
    small.write_catalogue(night, ids)
    shutil.copytree(night, blind)
    vectors = load_file(night / "vectors.safetensors")["vectors"]
    before = {"vectors": vectors.flip(0).contiguous()}
    save_file(before, str(night / "vectors_before_validation.safetensors"))
    save_file(before, str(blind / "vectors.safetensors"))

    def trained(semantic_ids: Path) -> dict[str, torch.Tensor]:
        out = tmp_path / f"reward of {semantic_ids.name}"
        out.mkdir()
        job = RewardJob(
            session_dataset=tmp_path / "session_dataset",
            semantic_ids=semantic_ids,
            reward=replace(small.REWARD, max_epochs=1),
            runtime=Runtime(accelerator="cpu", threads=1),
        )
        job.run(out, scratch=tmp_path / "scratch" / semantic_ids.name, log=lambda message: None)
        return load_file(out / "model.safetensors")

    of_night, of_blind = trained(night), trained(blind)
    assert of_night.keys() == of_blind.keys()
    assert all(torch.equal(tensor, of_blind[name]) for name, tensor in of_night.items())
