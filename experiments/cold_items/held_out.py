"""Holds items out of a nightly run's training days; the catalogue keeps them.

Held-out items get other names in the catalogue that models learn with: readers of the session
dataset drop names that they do not know, so every event of these items leaves what is learned,
while rows, texts and semantic IDs stay. Shapes: C cases, H history items, T targets, N items.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import load_file, save_file

from onerec.config import EmbeddingConfig, TokenizerConfig, require
from onerec.embeddings.item_embeddings import embed_items
from onerec.ranked_lists import last_items
from onerec.session_dataset.eval_users import EvalUsers, load_eval_users
from onerec.tokenizer.semantic_ids import SemanticIds
from onerec.tokenizer.tokenized_catalogue import (
    extend_tokenized,
    load_tokenized,
    tokenize_catalogue,
)

CONTENT_FILE = "content.safetensors"
RENAMED = "held out: "
"""Prefix of a held-out item's name in the catalogue that models learn with."""


def choose_held_out(
    catalogue: pa.Table, share: float, seed: int, *, before: date
) -> frozenset[str]:
    """A random share of the items first seen before a day, by name.

    Args:
        catalogue: Columns `item_id` and `first_seen`.
        share: In (0, 1).
        seed: Another seed holds others out.
        before: The day.
    """
    require(0 < share < 1, "share", share, "use a share in (0, 1)")
    first_seen = catalogue["first_seen"].to_numpy().astype("datetime64[D]")
    names = np.sort(
        catalogue["item_id"].to_numpy().astype(str)[first_seen < np.datetime64(before, "D")]
    )
    chosen = np.random.default_rng(seed).permutation(len(names))[: round(share * len(names))]
    return frozenset(names[chosen].tolist())


def renamed(item_ids: pa.ChunkedArray, held_out: frozenset[str]) -> pa.Array:
    """The ids with those of held-out items renamed."""
    return pa.array(
        [f"{RENAMED}{name}" if name in held_out else name for name in item_ids.to_pylist()],
        pa.string(),
    )


@dataclass(frozen=True)
class HeldOutCatalogue:
    """A catalogue as models learn with it, and as cases are read with.

    Attributes:
        learned: Held-out items have names that no event has.
        real: The same rows under the items' own names.
        vectors: (N, Dv) of both; those of held-out items from content alone.
        content: (N, Dc) unit vectors of every item from content alone.
        directory: `learned` and `vectors`, as a `semantic_ids` artifact holds them.
    """

    learned: SemanticIds
    real: SemanticIds
    vectors: np.ndarray
    content: np.ndarray
    directory: Path

    @property
    def is_held_out(self) -> np.ndarray:
        """(N,) booleans."""
        return self.learned.item_ids != self.real.item_ids

    def cases(
        self, session_dataset: Path, split: str, day: date, *, history_length: int
    ) -> EvalUsers:
        """Users of a day with what they watched of the whole catalogue; histories hold no held-out
        item, since their events are gone.

        Args:
            session_dataset: Files of the artifact.
            split: `valid` or `test`.
            day: Its day.
            history_length: H.
        """
        found = load_eval_users(
            session_dataset,
            split,
            self.real,
            history_length=2 * history_length,
            rankable=self.real.candidates(day),
        )
        gone = (found.history >= 0) & self.is_held_out[found.history.clip(min=0)]
        history = torch.from_numpy(np.where(gone, -1, found.history))
        return replace(found, history=last_items(history, history_length).numpy())


def hold_out(
    catalogue: pa.Table,
    session_dataset: Path,
    held_out: frozenset[str],
    *,
    supplied: pa.Table | None = None,
    embeddings: EmbeddingConfig,
    tokenizer: TokenizerConfig,
    day: date,
    out_dir: Path,
) -> HeldOutCatalogue:
    """Embed and tokenize a catalogue as if nobody had been shown some of its items.

    Args:
        catalogue: `schema.ITEMS` columns and `first_seen`.
        session_dataset: Files of the artifact.
        held_out: Names of the items.
        supplied: `schema.ITEM_VECTORS`, one's own vectors; held-out items keep theirs.
        embeddings, tokenizer: Settings of the nightly run.
        day: D.
        out_dir: Gets the codebook and the learned catalogue.
    """
    place = catalogue.schema.get_field_index("item_id")
    masked = catalogue.set_column(place, "item_id", renamed(catalogue["item_id"], held_out))
    if supplied is not None:
        place = supplied.schema.get_field_index("item_id")
        names = renamed(supplied["item_id"], held_out)
        supplied = supplied.set_column(place, "item_id", names)
    items = embed_items(masked, session_dataset, supplied, embeddings, before=day)
    codebook = out_dir / "codebook"
    codebook.mkdir(parents=True)
    tokenize_catalogue(items, day, tokenizer, codebook)
    made = extend_tokenized(codebook, None, items)
    made.save(out_dir)
    without = replace(embeddings, collaborative_dim=0)
    content = embed_items(masked, session_dataset, supplied, without, before=day)
    rows = content.index_of(made.ids.item_ids)
    save_file({"vectors": content.vectors[rows]}, out_dir / CONTENT_FILE)
    return open_held_out(out_dir)


def open_held_out(directory: Path) -> HeldOutCatalogue:
    """Read what `hold_out` wrote."""
    made = load_tokenized(directory)
    names = np.array([name.removeprefix(RENAMED) for name in made.ids.item_ids], dtype=object)
    real = replace(made.ids, item_ids=names)
    content = load_file(directory / CONTENT_FILE)["vectors"]
    return HeldOutCatalogue(made.ids, real, made.vectors, content, directory)
