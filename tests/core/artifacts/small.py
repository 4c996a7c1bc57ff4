"""A small artifact with a file in a directory of its own."""

from typing import Any

from onerec.artifacts import Artifact, ArtifactStore, write_json

DAY, NEXT = "2026-06-14", "2026-06-15"


def publish(store: ArtifactStore, text: str = "hello", day: str = DAY, **changed: Any) -> Artifact:
    given = {"config": {"k": 32}, "upstream": {"before": "1"}, "code_version": "c", "seed": 0}
    with store.write("codebook", day, **{**given, **changed}) as draft:
        (draft.path / "text.txt").write_text(text)
        (draft.path / "deep" / "er").mkdir(parents=True)
        write_json(draft.path / "deep" / "er" / "numbers.json", {"b": 1, "a": 2})
        draft.row_counts["rows"] = len(text)
    return draft.artifact
