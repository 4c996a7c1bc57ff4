"""Amazon Beauty by TIGER's protocol: baselines, the generator, and a dense head beside it."""

SYSTEM_NAMES = ("popularity", "itemknn", "sasrec_ce", "sasrec_ss", "esasrec", "tiger", "onerec")
"""What is trained and measured."""
COUNTED = ("popularity", "itemknn")
"""Systems without randomness: one seed says all."""
SEEDS = (0, 1, 2)
PARTITIONS = tuple(
    f"{name}-{seed}" for name in SYSTEM_NAMES for seed in (SEEDS[:1] if name in COUNTED else SEEDS)
)
"""`<system>-<seed>`."""
