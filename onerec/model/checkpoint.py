"""Checkpoints: weights in safetensors, everything else in one JSON file, loaded strictly.

A checkpoint belongs to a tokenizer version: under another codebook the same tokens mean other
items, so loading against one is an error that names both.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from onerec.config import ModelConfig
from onerec.model.item_neighbours import ItemNeighbours
from onerec.model.onerec import OneRec
from onerec.model.recency_prior import RecencyPrior
from onerec.model.user_features import UserVocabulary

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


class TokenizerVersionMismatchError(ValueError):
    """A checkpoint and semantic IDs (or two checkpoints) of different tokenizer versions."""

    def __init__(self, *, checkpoint: str, expected: str, where: Path) -> None:
        self.checkpoint = checkpoint
        self.expected = expected
        super().__init__(
            f"checkpoint {where} was trained on tokenizer version {checkpoint!r}, but "
            f"tokenizer version {expected!r} is in use: the same tokens mean other items. Train "
            f"from "
            f"scratch on {expected!r}, or go back to the semantic IDs of {checkpoint!r}"
        )


def save_model(model: OneRec, directory: Path, *, tokenizer_version: str) -> None:
    """Write `model.safetensors` and `config.json`; the same model gives the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(weights, directory / WEIGHTS)
    description = {
        "model": dataclasses.asdict(model.config),
        "recency_prior": dataclasses.asdict(model.recency_prior),
        "dense_share": model.dense_share,
        "neighbour_weight": model.neighbour_weight,
        "reward_weight": model.reward_weight,
        "user_attributes": {} if model.users is None else dict(model.users.vocabulary.values),
        "codebook_size": model.codebook_size,
        "num_sid_tokens": model.num_sid_tokens,
        "history_length": model.history_length,
        "session_items": model.session_items,
        "tokenizer_version": tokenizer_version,
    }
    _write_config(directory, description)


def write_reward_weight(directory: Path, weight: float) -> None:
    """Give a checkpoint another weight of the reward; its weights stay as they are."""
    _write_config(directory, {**read_config(directory), "reward_weight": weight})


def _write_config(directory: Path, description: Mapping[str, Any]) -> None:
    (directory / CONFIG).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")


def read_config(directory: Path) -> dict[str, Any]:
    """The parsed `config.json` of a checkpoint.

    Raises:
        FileNotFoundError: There is no checkpoint in the directory.
    """
    path = directory / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint in {directory}: {CONFIG} is missing")
    return json.loads(path.read_text())


def read_user_vocabulary(description: Mapping[str, Any]) -> UserVocabulary | None:
    """The attributes of users that a checkpoint knows, from its parsed `config.json`."""
    known = description.get("user_attributes")
    return (
        UserVocabulary({name: tuple(values) for name, values in known.items()}) if known else None
    )


def load_model(
    directory: Path, *, expected_tokenizer_version: str | None, device: str | torch.device = "cpu"
) -> tuple[OneRec, str]:
    """Load a checkpoint strictly, in evaluation mode.

    Args:
        directory: With `model.safetensors` and `config.json`.
        expected_tokenizer_version: That of the semantic IDs it will be used with; None to
            only look at it.
        device: Where the weights go.

    Returns:
        The model and its tokenizer version.

    Raises:
        FileNotFoundError: There is no checkpoint in the directory.
        TokenizerVersionMismatchError: The checkpoint is of another tokenizer version.
        ValueError: The weights are damaged or do not fit the configuration.
    """
    description = read_config(directory)
    tokenizer_version = description["tokenizer_version"]
    if expected_tokenizer_version is not None and tokenizer_version != expected_tokenizer_version:
        raise TokenizerVersionMismatchError(
            checkpoint=tokenizer_version, expected=expected_tokenizer_version, where=directory
        )
    try:
        config = ModelConfig(**description["model"])
    except TypeError as error:
        raise ValueError(
            f"{directory / CONFIG} has settings this version does not know ({error}): "
            "retrain, or load it with the version that wrote it"
        ) from error
    with torch.random.fork_rng(devices=[]):  # building draws weights that are replaced at once
        model = OneRec(
            config,
            codebook_size=description["codebook_size"],
            num_sid_tokens=description["num_sid_tokens"],
            history_length=description["history_length"],
            session_items=description["session_items"],
        )
    model.recency_prior = RecencyPrior(**description.get("recency_prior", {}))
    model.dense_share = description.get("dense_share", 0.0)
    model.neighbour_weight = description.get("neighbour_weight", 0.0)
    model.reward_weight = description.get("reward_weight", 0.0)
    if (vocabulary := read_user_vocabulary(description)) is not None:
        model.add_user_features(vocabulary)
    try:
        weights = load_file(directory / WEIGHTS)
        if config.dense_head:
            with torch.random.fork_rng(devices=[]):
                model.add_dense_head(*weights["dense.vectors"].shape)
        if "neighbours.item" in weights:
            model.neighbours = ItemNeighbours(*weights["neighbours.item"].shape)
        model.load_state_dict(weights, strict=True)
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{directory / WEIGHTS} does not fit its {CONFIG}: {error}. "
            "The checkpoint is damaged; take another version"
        ) from error
    return model.to(device).eval(), tokenizer_version
