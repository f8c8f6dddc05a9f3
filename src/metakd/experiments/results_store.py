"""Finished cells of experiments, one JSON Lines row each: added one by one, read again, merged from other machines."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from metakd.utils.console import console
from metakd.utils.errors import InputError


class ResultsStore:
    """A JSON Lines file of finished cells by key; a torn last line counts as not there, and goes with the next row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = {row["key"]: row for row in _read(path)} if path.exists() else {}

    def add(self, row: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.found[row["key"]] = row

    def merge(self, other: Path, wanted: Collection[str]) -> None:
        """Take over the cells of another machine, and say how many of them are `wanted`."""
        try:
            rows = _read(other)
        except OSError as error:
            raise InputError(f"--merge {other}: cannot be read ({error.strerror})") from None
        hits = sum(row["key"] in wanted for row in rows)
        console.print(f"{other}: {len(rows)} rows, {hits} of them of this experiment", highlight=False)
        for row in rows:
            if row["key"] not in self.found:
                self.add(row)


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of all whole lines."""
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if any(set(marks) - {"0", "1"} for domains in row["right"].values() for marks in domains.values()):
                raise ValueError("not marks")
            known = row["environment"]["versions"].get("metakd"), row["environment"]["commit"]
            if not isinstance(row["key"], str) or not all(isinstance(fact, str | None) for fact in known):
                raise ValueError("not a row's key and environment")
            if not {"variant", "seed"} <= {*row}:
                raise ValueError("not a row's line and seed")
            rows.append(row)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise InputError(f"{path}, line {number}: not the row of a cell; remove it, or the file") from None
    return rows
