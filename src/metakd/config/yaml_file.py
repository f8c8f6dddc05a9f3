"""A YAML file of settings, read as untrusted text."""

from collections import Counter
from pathlib import Path
from textwrap import shorten
from typing import Any

from metakd.utils.errors import InputError, listed, require

LONGEST_FILE = 100_000  # characters of a file of settings


def read_settings_file(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, unchecked; `Settings.build` checks them.

    InputError for what YAML allows and no file of settings needs: aliases, a few lines of which can stand for
    billions of values, and a key that is there twice.
    """
    yaml = require("yaml", "train")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST_FILE + 1)
        if len(text) > LONGEST_FILE:
            raise InputError(f"{path}: longer than {LONGEST_FILE:,} characters, so it is no file of settings")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InputError(f"{path}: holds an alias ('*name'); write the value out")
        if repeated := _repeated_keys(yaml.compose(text, yaml.SafeLoader)):
            raise InputError(f"{path}: {listed(repeated)} is there more than once; keep one")
        values = yaml.safe_load(text)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # besides YAMLError whatever the types of its values raise, such as a 13th month
        raise InputError(f"{path}: not valid YAML ({shorten(str(error), 300) or type(error).__name__})") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: expected 'setting: value' lines, one for each setting")
    return values


def _repeated_keys(node: Any) -> list[str]:
    """The keys that a mapping of YAML's tree, or one within it, has more than once: YAML itself keeps the last."""
    if not isinstance(node, require("yaml", "train").MappingNode):
        return []
    repeated = [key for key, count in Counter(str(key.value) for key, _ in node.value).items() if count > 1]
    return repeated or next(filter(None, (_repeated_keys(value) for _, value in node.value)), [])
