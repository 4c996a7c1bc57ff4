"""Reading a YAML file of settings, strictly."""

import re
from pathlib import Path
from typing import Any

import yaml

from onerec.config.fields import SettingError, require, shortened_key


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, which PyYAML would let the later one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: list[Any] = []
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *defaults`
                continue
            key = self.construct_object(key_node, deep=True)
            if key in found:
                line = key_node.start_mark.line + 1
                raise SettingError(
                    shortened_key(key), "given twice", f"keep one of them (line {line})"
                )
            found.append(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> Any:
        """A date; one that no calendar has, 2026-06-31, stays a text for its field to refuse."""
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError:
            return self.construct_scalar(node)


_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _StrictLoader.construct_yaml_timestamp)

# Numbers as YAML 1.2 has them. PyYAML follows 1.1, which reads 0100 as 64, 1:04 as 64 and 1e-3 as a
# text
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+|[0-9]+\.[0-9]*|\.[0-9]+[eE][-+]?[0-9]+)$"
        r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The names and values of a YAML file; an empty file has none.

    Raises:
        SettingError: There is no such file, it is not YAML, or it does not map names to values, or
            gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingError(str(path), error.strerror, "name a YAML file that can be read") from None
    except UnicodeDecodeError as error:
        raise SettingError(str(path), error.reason, "save the file as UTF-8") from None
    try:
        value = yaml.load(text, _StrictLoader)
    except SettingError as error:
        raise SettingError(f"{path}: {error.field}", error.value, error.remedy) from None
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError) as error:
        # a number of too many digits, or a tag that does not fit
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingError(str(path), reason, "is not valid YAML; correct the file") from None
    value = {} if value is None else value
    require(isinstance(value, dict), str(path), value, "must be a YAML mapping of names to values")
    for key in value:
        require(isinstance(key, str), f"{path}: {shortened_key(key)}", value[key], "use a name")
    return value
