"""The scratch directory of an unfinished training: whose it is, and whether it can be read."""

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

from safetensors import SafetensorError, safe_open
from torch import Tensor

from onerec.training.resume import RESUME

log = logging.getLogger(__name__)

FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """Where a killed training is resumed from.

    Attributes:
        directory: Outlives a killed run; the caller deletes it when the result is safe.
        identity: What the training depends on beside settings, runtime, weights and rows. Work of
            another training that lies in the directory is thrown away.
    """

    directory: Path
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def digest(tensors: Iterable[Tensor]) -> str:
    """Hash of tensors with their types and shapes."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def claim(directory: Path, fingerprint: Mapping[str, Any]) -> None:
    """Keep what lies in the directory if it is of this very training, else start with nothing.

    Unfinished work that cannot be read is thrown away with a warning.
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
            if archive.testzip() is not None:  # torch.load does not look at the checksums
                return state
    except Exception:  # a damaged archive fails in many ways
        return state
    for weights in directory.glob("best-*.safetensors"):
        try:
            with safe_open(weights, framework="pt"):
                pass
        except (OSError, SafetensorError):
            return weights
    return None
