"""A picture of a report: a Vega-Lite specification, by Altair, and the table that it was drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

HEIGHT = 300  # pixels of a picture
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Picture:
    """A specification, and its data as rows."""

    name: str  # of its element in the page
    title: str
    caption: str  # how to read it
    specification: Mapping[str, Any]
    rows: Rows

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows for column in row))


def picture(name: str, title: str, caption: str, chart: Any, rows: Rows, **properties: Any) -> Picture:
    """`properties` may set the height, and the data where more is drawn than the rows."""
    defaults = {"width": "container", "height": HEIGHT, "data": alt.Data(values=list(rows)), "description": caption}
    return Picture(name, title, caption, chart.properties(**(defaults | properties)).to_dict(), rows)
