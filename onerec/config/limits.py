"""Upper limits that several settings share.

They are far above anything sensible: a value beyond them is a slip of the keyboard, which would
otherwise fail after hours, for want of memory.
"""

LARGEST_SEED = 2**31 - 1
LARGEST_BATCH = 2**20
MOST_EPOCHS = 10_000
MOST_STEPS = 10**9
MOST_USERS = 10**9
LARGEST_WIDTH = 2**16
MOST_LAYERS = 512
LONGEST_SEQUENCE = 2**16
"""Items of a history, a session or a list; beams of a search."""
LARGEST_WEIGHT = 1e6
"""Of a term of a loss, and of other factors."""
