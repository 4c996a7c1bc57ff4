"""Item embeddings: text, co-watching, attributes and supplied vectors, one vector an item."""
