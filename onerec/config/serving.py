"""Settings of what consumers get."""

from dataclasses import dataclass

from onerec.config.fields import ValidatedConfig, option
from onerec.config.limits import LONGEST_SEQUENCE


@dataclass(frozen=True, kw_only=True)
class ServingConfig(ValidatedConfig):
    """What consumers get."""

    list_length: int = option(20, "Items recommended to each user", ge=1, le=LONGEST_SEQUENCE)
