"""A bundle: the directory that serving loads, of a generator or of a simple system."""

import shutil
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from onerec.config import BeamConfig
from onerec.model.checkpoint import read_config
from onerec.model.recency_prior import RecencyPrior
from onerec.serving.recommender import PRIOR, REWARD, Recommender, write_bundle
from onerec.serving.simple_recommender import SIMPLE_SETTINGS, SimpleRecommender
from onerec.session_dataset.newest_watches import WatchesBefore
from onerec.tokenizer.semantic_ids import load_semantic_ids


def load_bundle(path: Path | str, *, device: str = "cpu") -> Recommender | SimpleRecommender:
    """Load a bundle of either kind.

    Raises:
        FileNotFoundError: The directory is no bundle.
    """
    if (Path(path) / SIMPLE_SETTINGS).exists():
        return SimpleRecommender.load(path)
    return Recommender.load(path, device=device)


def prepare_bundle(
    directory: Path,
    *,
    champion: Path,
    semantic_ids: Path,
    reward_model: Path,
    config: BeamConfig,
    watches: WatchesBefore,
) -> bool:
    """Write the bundle that serves: the champion with the day's catalogue and reward model.

    A champion that was published without a reward model serves by probability and gets none.

    A champion of an earlier day with the current tokenizer version takes the day's catalogue, and
    so recommends items that are newer than itself. With another tokenizer version its SID tokens
    stand for other items: it keeps the catalogue and the reward model that it was published with.
    So does a simple system.

    Args:
        directory: Gets the bundle.
        champion: Directory of the champion artifact.
        semantic_ids: Directory of the day's artifact.
        reward_model: Directory of the day's artifact.
        config: Beam width and batch size.
        watches: Counts of recent watches for the champion's recency prior.

    Returns:
        Whether the day's catalogue is used.
    """
    own, today = load_semantic_ids(champion), load_semantic_ids(semantic_ids)
    simple = (champion / SIMPLE_SETTINGS).exists()
    if not simple and own.tokenizer_version == today.tokenizer_version:
        write_bundle(
            directory,
            checkpoint=champion,
            semantic_ids=semantic_ids,
            reward=reward_model if (champion / REWARD).exists() else None,
            config=config,
        )
        add_recency_prior(directory, watches)
        return True
    copy_bundle(directory, champion)
    # its IDs stay, but items withdrawn since then are no longer recommended
    replace(own, withdrawn_on=today.withdrawn_days(own.item_ids)).save(directory)
    add_recency_prior(directory, watches)
    return False


def add_recency_prior(bundle: Path, watches: WatchesBefore) -> None:
    """Add the generator's recency prior as of the serving day to a bundle."""
    if (bundle / SIMPLE_SETTINGS).exists():
        return
    prior = RecencyPrior(**read_config(bundle).get("recency_prior", {}))
    added = prior.of(watches.count(load_semantic_ids(bundle), prior.days))
    if added is not None:
        save_file({"prior": added}, bundle / PRIOR)


def copy_bundle(directory: Path, champion: Path) -> None:
    """Copy the bundle of a champion artifact as it was published."""
    left_out = shutil.ignore_patterns("champion.json", "manifest.json")
    shutil.copytree(champion, directory, ignore=left_out)
