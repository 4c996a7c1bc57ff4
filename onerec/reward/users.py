"""Who trains the reward model and who trains its judge."""

import numpy as np
import pandas as pd


def split_users(user_ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose a share of users by a hash of their id, the same on every day and machine.

    Args:
        user_ids: (U,) strings.
        share: Expected share chosen, in [0, 1].
        seed: Another seed chooses other users.

    Returns:
        (U,) bool. The chosen and the others are disjoint sets of users; a user's side depends on
        the id alone, so it never changes while others come and go.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share!r}: use a share of the users in [0, 1]")
    ids = np.asarray(user_ids, dtype=object)
    hashes = pd.util.hash_array(ids, hash_key=f"{seed % 10**16:016d}", categorize=False)
    # The upper 53 bits make a uniform float64 in [0, 1) without rounding up to 1.
    return (hashes >> np.uint64(11)) * 2.0**-53 < share
