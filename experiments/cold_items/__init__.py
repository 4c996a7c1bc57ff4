"""Items that no model has seen: a seeded share leaves the training days of a nightly run."""

MOVIELENS_FILES = ("ml-100k.inter", "ml-100k.item")
"""What the experiment reads of MovieLens-100k."""
