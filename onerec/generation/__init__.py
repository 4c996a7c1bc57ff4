"""Generation: the trie of legal semantic IDs, constrained beam search, ranked lists."""

from onerec.generation.beam import Beams, generate_sessions
from onerec.generation.ranking import (
    rank_by_content,
    rank_first_items,
    rank_items,
    score_catalogue,
    score_items,
)
from onerec.generation.trie import Trie

__all__ = [
    "Beams",
    "Trie",
    "generate_sessions",
    "rank_by_content",
    "rank_first_items",
    "rank_items",
    "score_catalogue",
    "score_items",
]
