"""The loss that a method of the configuration names."""

from onerec.alignment.group_losses import ECPO, GRPO, GroupLoss
from onerec.alignment.losses import CDPO, CPO, DPO, IPO, RDPO, SDPO, PreferenceLoss, SimPO
from onerec.alignment.objectives import GroupObjective, Objective, PairObjective
from onerec.config import AlignmentConfig


def objective_of(config: AlignmentConfig) -> Objective:
    """The objective of `config.method` with its settings.

    `ipa` is DPO: what makes it IPA is that its pairs are the best and the worst of the model's own
    beams and that L_NTP stands beside it, which `AlignmentConfig` insists on.
    """
    pair_losses: dict[str, PreferenceLoss] = {
        "ipa": DPO(config.beta),
        "dpo": DPO(config.beta),
        "ipo": IPO(config.beta),
        "cdpo": CDPO(config.beta, config.label_noise),
        "rdpo": RDPO(config.beta, config.label_noise),
        "cpo": CPO(config.beta, config.nll_weight),
        "simpo": SimPO(config.beta, config.target_margin),
        "sdpo": SDPO(config.beta),
    }
    group_losses: dict[str, GroupLoss] = {
        "grpo": GRPO(config.clip, config.kl_weight),
        "ecpo": ECPO(config.clip, config.early_clip),
    }
    if config.method in group_losses:
        return GroupObjective(group_losses[config.method])
    return PairObjective(pair_losses[config.method])
