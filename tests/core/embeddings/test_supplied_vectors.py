"""Supplied vectors of any quality."""

import numpy as np
import pyarrow as pa

from onerec.embeddings.supplied_vectors import usable_vectors
from onerec.schema import ITEM_VECTORS


def vectors(*rows: tuple[str | None, list | None]) -> pa.Table:
    ids, lists = zip(*rows, strict=True)
    return pa.table([pa.array(ids), pa.array(lists)], schema=ITEM_VECTORS)


def test_the_first_usable_vector_of_an_item_is_used() -> None:
    nan, inf = float("nan"), float("inf")
    kept, unused = usable_vectors(
        vectors(
            ("nan", [nan, 1.0]),
            ("inf", [inf, 1.0]),
            ("zeros", [0.0, 0.0]),
            ("short", [1.0]),
            ("none", None),
            ("hole", [None, 1.0]),
            ("empty", []),
            (None, [1.0, 1.0]),
            ("twice", [nan, 1.0]),
            ("twice", [1.0, 2.0]),
            ("twice", [3.0, 4.0]),
            ("once", [5.0, 0.0]),
        )
    )
    assert kept.to_pylist() == [
        {"item_id": "twice", "vector": [1.0, 2.0]},
        {"item_id": "once", "vector": [5.0, 0.0]},
    ]
    assert unused == {
        "no item or no vector": 3,
        "another length than most": 1,
        "NaN or infinite": 4,
        "all zeros": 1,
        "a repeated item": 1,
    }


def test_good_vectors_stay_as_they_are() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    given = vectors(*((f"i{n}", list(row)) for n, row in enumerate(rows)))
    kept, unused = usable_vectors(given)
    assert kept.equals(given)
    assert unused == {}


def test_no_vector_is_usable() -> None:
    kept, unused = usable_vectors(vectors(("a", [0.0]), ("b", None)))
    assert (kept.num_rows, unused) == (0, {"no item or no vector": 1, "all zeros": 1})
    assert usable_vectors(ITEM_VECTORS.empty_table())[0].num_rows == 0
