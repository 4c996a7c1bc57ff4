"""Names of the configuration and the losses they mean."""

import pytest

from onerec.alignment.group_losses import ECPO, GRPO
from onerec.alignment.losses import CDPO, CPO, DPO, SimPO
from onerec.alignment.methods import objective_of
from onerec.alignment.objectives import GroupObjective, PairObjective
from onerec.config import GROUP_METHODS, PAIR_METHODS, AlignmentConfig


def test_every_name_has_a_loss_and_the_default_is_todays():
    assert objective_of(AlignmentConfig()) == PairObjective(DPO(0.1))
    for method in PAIR_METHODS:
        assert isinstance(objective_of(AlignmentConfig(method=method)), PairObjective)
    for method in GROUP_METHODS:
        assert isinstance(objective_of(AlignmentConfig(method=method)), GroupObjective)


def test_settings_reach_the_loss():
    def loss(**settings):
        return objective_of(AlignmentConfig(**settings)).loss  # pyright: ignore

    assert loss(method="cdpo", beta=0.3, label_noise=0.2) == CDPO(0.3, 0.2)
    assert loss(method="cpo", beta=0.3, nll_weight=2.0) == CPO(0.3, 2.0)
    assert loss(method="simpo", beta=2.5, target_margin=1.0) == SimPO(2.5, 1.0)
    assert loss(method="grpo", clip=0.1, kl_weight=0.04) == GRPO(0.1, 0.04)
    assert loss(method="ecpo", early_clip=0.3) == ECPO(0.2, 0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "ppo"}, "method='ppo': use 'ipa', 'dpo', "),
        ({"method": "dpo", "pairs": "guesses"}, "pairs='guesses'"),
        ({"pairs": "sampling"}, "IPA compares the model's own beams"),
        ({"ntp_weight": 0}, "use method='dpo'"),
        ({"method": "grpo", "pairs": "feedback"}, "no group of sessions"),
        ({"method": "grpo", "group_size": 1}, "group_size=1"),
        ({"temperature": 0}, "temperature=0"),
    ],
)
def test_clear_errors(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        AlignmentConfig(**settings)
