"""Which loss a name of the configuration means: the one place where names are looked at."""

from onerec.alignment.group_losses import ECPO, GRPO, GroupLoss
from onerec.alignment.losses import CDPO, CPO, DPO, IPO, RDPO, SDPO, PreferenceLoss, SimPO
from onerec.alignment.objectives import Objective, OverGroups, OverPairs
from onerec.config import AlignmentConfig


def objective_of(config: AlignmentConfig) -> Objective:
    """The objective of `config.method` with its settings.

    `ipa` is DPO: what makes it IPA is that its pairs are the best and the worst of the model's own
    beams and that L_NTP stands beside it, which `AlignmentConfig` insists on.
    """
    over_pairs: dict[str, PreferenceLoss] = {
        "ipa": DPO(config.beta),
        "dpo": DPO(config.beta),
        "ipo": IPO(config.beta),
        "cdpo": CDPO(config.beta, config.label_noise),
        "rdpo": RDPO(config.beta, config.label_noise),
        "cpo": CPO(config.beta, config.nll_weight),
        "simpo": SimPO(config.beta, config.target_margin),
        "sdpo": SDPO(config.beta),
    }
    over_groups: dict[str, GroupLoss] = {
        "grpo": GRPO(config.clip, config.kl_weight),
        "ecpo": ECPO(config.clip, config.early_clip),
    }
    if config.method in over_groups:
        return OverGroups(over_groups[config.method])
    return OverPairs(over_pairs[config.method])
