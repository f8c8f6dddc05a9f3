"""A picture of a report: a Vega-Lite specification, by Altair, and the table that it was drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

HEIGHT = 300  # of a picture
ResultsStore = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Picture:
    """A specification, and its data as rows."""

    name: str  # of its element in the page
    title: str
    told: str  # how to read it
    specification: Mapping[str, Any]
    rows: ResultsStore

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows for column in row))


def picture(name: str, title: str, told: str, chart: Any, rows: ResultsStore, **drawn: Any) -> Picture:
    """`drawn` may have the height, and the data where they are more than the rows."""
    size = {"width": "container", "height": HEIGHT, "data": alt.Data(values=list(rows)), "description": told}
    return Picture(name, title, told, chart.properties(**(size | drawn)).to_dict(), rows)
