"""A YAML file of settings, read as untrusted text."""

from __future__ import annotations

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
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid YAML ({error})") from None
    if len(text) > LONGEST_FILE:
        raise InputError(f"{path}: longer than {LONGEST_FILE:,} characters, so it is no file of settings")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InputError(f"{path}: holds an alias ('*name'); write the value out")
        _refuse_twice(path, yaml.compose(text, yaml.SafeLoader))
        values = yaml.safe_load(text)
    except InputError:
        raise
    except Exception as error:  # besides YAMLError whatever the types of its values raise, such as a 13th month
        raise InputError(f"{path}: not valid YAML ({shorten(str(error), 300) or type(error).__name__})") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: expected 'setting: value' lines, one for each setting")
    return values


def _refuse_twice(path: Path, node: Any) -> None:
    """InputError for a mapping of YAML's tree, or of one within it, that has a key twice: YAML keeps the last."""
    if isinstance(node, require("yaml", "train").MappingNode):
        keys = [str(key.value) for key, _ in node.value]
        if twice := [key for key, count in Counter(keys).items() if count > 1]:
            raise InputError(f"{path}: {listed(twice)} is there more than once; keep one")
        for _, value in node.value:
            _refuse_twice(path, value)
