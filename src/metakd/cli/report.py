"""The commands that show the results of finished runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from metakd.cli.options import load_library
from metakd.utils.console import notice, stdout
from metakd.utils.errors import InputError

app = typer.Typer()


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="DIR")],
    texts: Annotated[bool, typer.Option(help="Show examples and terms; --no-texts for customers' data.")] = True,
    experiments: Annotated[
        Path | None, typer.Option(help="Folder of `metakd experiment`, to draw fewer labels and unseen domains too.")
    ] = None,
    form: Annotated[
        Literal["html", "markdown"], typer.Option("--format", help="A page, or Markdown on the terminal.")
    ] = "html",
) -> None:
    """One page with the results of a run: scores, pictures, costs, mistakes and data health."""
    load_library()
    from metakd.report.facts import Findings
    from metakd.report.page import markdown, write_report

    if form == "markdown":
        if experiments:
            raise InputError("--experiments adds pictures, which Markdown does not have; leave out --format markdown")
        stdout.print(markdown(Findings.read(folder)), markup=False, highlight=False, soft_wrap=True)
    else:
        stdout.print(f"report: {write_report(folder, texts, experiments)}", soft_wrap=True)


@app.command()
def compare(folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", metavar="DIR...")]) -> None:
    """Students of several runs side by side, with paired tests against those of the first."""
    load_library()
    from metakd.report.compare import compare_runs, markdown

    stdout.print(markdown(compare_runs(folders)), markup=False, highlight=False, soft_wrap=True)


def report_of(folder: Path) -> str:
    """Where the report of a run that has just ended lies; without the extra, the Markdown alone."""
    from metakd.report.page import write_report

    try:
        return str(write_report(folder))
    except InputError as error:
        notice(f"no report.html: {error}")
        return str(folder / "results.md")
