"""Settings files and other YAML: read as untrusted text."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

from metakd.utils.errors import InputError, listed, require

LONGEST_FILE = 100_000  # characters of a settings file


def read_settings_file(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, unchecked; `Settings.build` checks them."""
    yaml = require("yaml", "train")
    return _read(path, yaml.safe_load)


def read_texts_by_key(path: Path) -> dict[str, str]:
    """The keys and values of a YAML file, all of them as they are written: `yes` is no boolean."""
    yaml = require("yaml", "train")

    def parse(text: str) -> Any:
        node = yaml.compose(text, yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            return node
        if several := [str(k.value) for k, v in node.value if not isinstance(v, yaml.ScalarNode)]:
            raise InputError(f"{path}: {listed(several)}: write one text for each key, not a list or a mapping")
        return {k.value: v.value for k, v in node.value}

    return _read(path, parse)


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """The mapping that `parse` makes of a YAML file.

    InputError for what YAML allows and no such file needs: aliases, as a few lines can stand for billions of values,
    and repeated keys.
    """
    yaml = require("yaml", "train")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST_FILE + 1)
        if len(text) > LONGEST_FILE:
            raise InputError(f"{path}: longer than {LONGEST_FILE:,} characters, so it is not a settings file")
        if "\0" in text:  # of UTF-16 without a byte-order mark
            raise InputError(f"{path}: contains NUL characters, so it is not UTF-8; save it as UTF-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InputError(f"{path}: contains an alias ('*name'); write out the value")
        if repeated := _repeated_keys(yaml.compose(text, yaml.SafeLoader)):
            raise InputError(f"{path}: repeated keys: {listed(repeated)}; keep one of each")
        values = parse(text)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start + 1}); save it as UTF-8") from None
    except Exception as error:  # YAMLError, and what parsing its values may raise, as for a 13th month
        raise InputError(f"{path}: not valid YAML ({shorten(str(error), 300) or type(error).__name__})") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: expected 'name: value' lines, one for each name")
    return values


def _repeated_keys(node: Any) -> list[str]:
    """The repeated keys of a YAML mapping, or of one within it; YAML itself would keep the last."""
    if not isinstance(node, require("yaml", "train").MappingNode):
        return []
    repeated = [key for key, count in Counter(str(key.value) for key, _ in node.value).items() if count > 1]
    return repeated or next(filter(None, (_repeated_keys(value) for _, value in node.value)), [])
