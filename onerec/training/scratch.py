"""The scratch directory of an unfinished training: checks its owner and integrity."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from onerec.training.resume import RESUME

log = logging.getLogger(__name__)

FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """Directory from which a killed training resumes.

    Attributes:
        directory: Survives a killed run; the caller deletes it after publishing.
        identity: Further dependencies of the training beside settings, runtime, weights and rows.
            Work of a training with another identity is deleted.
    """

    directory: Path
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def digest(tensors: Iterable[Tensor]) -> str:
    """Hash of tensors with their types and shapes."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        # as bytes, since NumPy has no bfloat16
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        total.update(flat.data)  # not copied
    return total.hexdigest()


def claim(directory: Path, fingerprint: Mapping[str, Any]) -> None:
    """Keep the directory's unfinished work if it is of this training, otherwise empty it.

    Unreadable work is deleted with a warning.
    """
    file = directory / FINGERPRINT
    text = json.dumps(fingerprint, sort_keys=True)
    if file.exists() and file.read_bytes() == text.encode():
        broken = _unreadable(directory)
        if broken is None:
            return
        log.warning("%s cannot be read: the training starts again from its beginning", broken)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    aside = file.with_suffix(".aside")
    aside.write_text(text)
    os.replace(aside, file)


def _unreadable(directory: Path) -> Path | None:
    """The file of the unfinished training that is damaged, if there is one."""
    state = directory / RESUME
    if not state.exists():
        return None
    try:
        with zipfile.ZipFile(state) as archive:
            if archive.testzip() is not None:  # torch.load does not verify checksums
                return state
    except Exception:  # damaged archives raise various exceptions
        return state
    for weights in directory.glob("best-*.safetensors"):
        try:
            with safe_open(weights, framework="pt"):
                pass
        except (OSError, SafetensorError):
            return weights
    return None
