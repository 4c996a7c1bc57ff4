"""Tokenizer: residual codebooks, the semantic IDs made from them, and tokenizer versions."""
