"""Rows of finished trials as JSON Lines: added one by one, read again, merged from other machines."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints

from metakd.utils.console import console
from metakd.utils.errors import InputError


class _Environment(BaseModel):
    versions: dict[str, str | None]
    commit: str | None


class _Row(BaseModel):
    """What every row has; trials add more to it."""

    key: str
    variant: str
    seed: int
    right: dict[str, dict[str, Annotated[str, StringConstraints(pattern="^[01]*$")]]]  # by split and domain
    environment: _Environment


class ResultsStore:
    """A file of rows by key: of a finished trial one of its students, and one of its teachers if it has any.

    An incomplete last line is ignored; the next row replaces it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = {row["key"]: row for row in _read(path)} if path.exists() else {}

    def add(self, row: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[row["key"]] = row

    def merge(self, other: Path, wanted: Collection[str]) -> None:
        """Add the rows of another machine, and print how many of them are `wanted`."""
        try:
            rows = _read(other)
        except OSError as error:
            raise InputError(f"--merge {other}: cannot be read ({error.strerror})") from None
        hits = sum(row["key"] in wanted for row in rows)
        console.print(f"{other}: {len(rows)} rows, {hits} of this experiment", highlight=False)
        for row in rows:
            if row["key"] not in self.rows:
                self.add(row)


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of all complete lines."""
    rows = list[dict[str, Any]]()
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(text))
            _Row.model_validate(rows[-1])
        except (ValueError, RecursionError):
            raise InputError(f"{path}, line {number}: not a row of an experiment; remove it, or the file") from None
    return rows
