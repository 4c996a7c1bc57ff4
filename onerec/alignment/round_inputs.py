"""The artifacts that a round of alignment reads: sessions, catalogue, generator, reward model."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from onerec.alignment.candidates import sample_contexts
from onerec.alignment.preferences import Preferences
from onerec.alignment.round_gate import GateCases
from onerec.config import AlignmentConfig, BeamConfig, Runtime
from onerec.evaluation.generators import SessionGenerator
from onerec.evaluation.reward_weight import load_held_out_cases
from onerec.generation import Trie
from onerec.model import OneRec, load_model
from onerec.reward import load_ensemble
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.generator_sessions import SessionTensors, load_session_tensors
from onerec.session_dataset.holdout import held_out_users
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids


@dataclass(frozen=True, kw_only=True)
class RoundInputs:
    """What a round reads; each artifact is loaded when it is first used.

    Attributes:
        session_dataset: Directory of the artifact, like the next ones.
        semantic_ids: The catalogue, with its vectors.
        start: Checkpoint of the generator that the round starts from.
        reward_model: Scores the sessions.
        test_day: Day D; items first seen before it may be generated.
    """

    session_dataset: Path
    semantic_ids: Path
    start: Path
    reward_model: Path
    test_day: date

    @cached_property
    def ids(self) -> SemanticIds:
        """The catalogue."""
        return load_semantic_ids(self.semantic_ids)

    @cached_property
    def model(self) -> OneRec:
        """The generator that the round starts from.

        Raises:
            TokenizerVersionMismatchError: It belongs to another tokenizer version than the
                catalogue.
        """
        version = self.ids.tokenizer_version
        return load_model(self.start, expected_tokenizer_version=version)[0]

    @cached_property
    def candidates(self) -> Tensor:
        """(N,) bool: items that may be generated."""
        return torch.from_numpy(self.ids.candidates(self.test_day))

    @property
    def lengths(self) -> dict[str, int]:
        """The generator's lengths."""
        model = self.model
        return {"history_length": model.history_length, "session_items": model.session_items}

    def sessions(self, split: str, *, held_out: bool | None = None) -> SessionTensors:
        """Good sessions of a split, in the generator's lengths.

        Args:
            split: `train` or `valid`.
            held_out: Those of the held-out users only, or of the others only; all by default.
        """
        found = load_session_tensors(
            self.session_dataset, split, self.ids, good_only=True, **self.lengths
        )
        if held_out is None:
            return found
        is_held_out = held_out_users(self.session_dataset, found.user_ids)[found.user.numpy()]
        return found.rows(is_held_out == held_out)

    def gate_cases(self, preferences: Preferences, alignment: AlignmentConfig) -> GateCases:
        """Cases of the validation day; beyond `gate_cases` and `gate_recall_cases` a seeded sample.

        Where `gate_cases` is 0 there are none of either kind.
        """
        good = self.sessions("valid")
        unpaired = ~np.isin(good.user_ids, preferences.user_ids)[good.user.numpy()]
        contexts = sample_contexts(good.rows(unpaired), alignment.gate_cases, alignment.seed)
        held_out = load_held_out_cases(
            self.session_dataset,
            self.ids,
            self.model,
            most=alignment.gate_recall_cases if alignment.gate_cases else 0,
            seed=alignment.seed,
        )
        return GateCases(contexts=contexts, held_out=held_out)

    def generator(self, decoding: BeamConfig, runtime: Runtime) -> SessionGenerator:
        """The start as a generator of the candidates."""
        device, ids = runtime.torch_device(), self.ids
        trie = Trie.build(ids.codes, ids.codebook_size, self.candidates)
        model = self.model.to(device).eval()
        return SessionGenerator(model, ids.codes.to(device), trie.to(device), decoding)

    def ensemble(self, directory: Path) -> RewardEnsemble:
        """The reward models of an artifact."""
        models = load_ensemble(directory)
        vectors = load_file(self.semantic_ids / "vectors.safetensors")["vectors"]
        return RewardEnsemble(models, vectors, models[0].config)
