"""The commands that show the results of finished runs, and that compare methods on the user's data."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from metakd.cli.assembly import load_library, read_data
from metakd.cli.options import DATA_HELP, Config, with_settings
from metakd.utils.console import notice, stdout
from metakd.utils.errors import InputError

app = typer.Typer()
NAMES = "main, tune, ablation, size, small, unseen, scarce-5, scarce-20, scarce-all-5, scarce-all-20, unlabelled, "
NAMES += "unlabelled-20"


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="DIR")],
    texts: Annotated[bool, typer.Option(help="Show examples and terms; --no-texts for confidential data.")] = True,
    experiments: Annotated[
        Path | None, typer.Option(help="Folder of `metakd experiment`: adds plots of fewer labels and unseen domains.")
    ] = None,
    form: Annotated[
        Literal["html", "markdown"], typer.Option("--format", help="A page, or Markdown on the terminal.")
    ] = "html",
) -> None:
    """Write one page with the results of a run: scores, plots, costs, mistakes and data health."""
    load_library(folder)
    from metakd.report.facts import Findings
    from metakd.report.page import markdown, write_report

    if form == "markdown":
        if experiments:
            raise InputError("--experiments adds plots, which Markdown does not have; leave out --format markdown")
        stdout.print(markdown(Findings.read(folder)), markup=False, highlight=False, soft_wrap=True)
    else:
        stdout.print(f"report: {write_report(folder, texts, experiments)}", soft_wrap=True)


@app.command()
def compare(folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", metavar="DIR...")]) -> None:
    """Compare students of several runs with those of the first, paired by example."""
    load_library(*folders)
    from metakd.report.compare import compare_runs, markdown

    stdout.print(markdown(compare_runs(folders)), markup=False, highlight=False, soft_wrap=True)


@app.command()
@with_settings
def experiment(
    options: dict[str, Any],
    name: Annotated[str, typer.Argument(help=f"{NAMES}.")],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for rows and tables; may be used again.")],
    config: Config = None,
    seeds: Annotated[str, typer.Option(help="Seeds of teachers and students: '0,1,2'.")] = "0,1,2",
    cut: Annotated[str, typer.Option(help="Split all rows again: percent for train/dev/test, such as '60/0/40'.")] = "",
    only: Annotated[
        str | None, typer.Option(help="Variants of the experiment, if not all: 'meta_kd,single_kd'.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to score: 'dev' to choose by, 'test' to report.")] = None,
    reference: Annotated[str | None, typer.Option(help="Variant that the others are compared with.")] = None,
    tuned: Annotated[Path | None, typer.Option(help="tune*.json of `experiment tune`: settings by variant.")] = None,
    merge: Annotated[list[Path] | None, typer.Option(help="rows.jsonl of another machine; may be repeated.")] = None,
) -> None:
    """Compare methods, parts or sizes over several seeds; continues where it was stopped."""
    if "seed" in options:
        raise InputError("--seed: an experiment has several seeds; write --seeds 0,1,2")
    numbers, shares = _numbers(seeds, ",", "--seeds", "0,1,2"), _shares(cut)
    settings, dataset = read_data(data, config, options, "an experiment", partial(_decided, name, tuned is not None))
    from metakd.experiments.runner import experiment as run_experiment
    from metakd.experiments.runner import report_name
    from metakd.experiments.tables import markdown
    from metakd.experiments.variants import TUNING_GRID
    from metakd.runs.defaults import fitted

    if shares:
        known, dataset = len(dataset.notices), dataset.resplit(*shares[1:])
        for message in dataset.notices[known:]:
            notice(message)
    settings = fitted(settings, dataset)
    if name == "tune" and settings.shared_epochs > (most := max(each["shared_epochs"] for each in TUNING_GRID)):
        notice(f"tune tries up to {most} shared epochs, fewer than the {settings.shared_epochs} that so few texts get")
    chosen = [] if only is None else [variant.strip() for variant in only.split(",")]
    choices: dict[str, Any] = {"only": chosen, "split": split, "reference": reference, "tuned": tuned}
    results = run_experiment(name, dataset, settings, output, seeds=numbers, merge=merge or [], **choices)
    stem = report_name(name, **choices)
    stdout.print(markdown(results), soft_wrap=True)
    stdout.print(f"report: {output / f'{stem}.md'} and {stem}.json", soft_wrap=True)


def _decided(name: str, tuned: bool) -> dict[str, Any]:
    """Settings that the variants of an experiment set; None if they differ in one, or it has no effect.

    Most experiments compare teachers that learn from different rows, so one that is there already has no place.
    """
    from metakd.experiments.trial import FIXED_SETTINGS
    from metakd.experiments.variants import TUNING_GRID

    differing = ["student"] if name == "size" else [*TUNING_GRID[0]] if name == "tune" or tuned else []
    trains_teachers = name not in ("ablation", "size", "small", "unlabelled", "unlabelled-20")
    return FIXED_SETTINGS | dict.fromkeys(["seed", "method", *differing, *["teacher"] * trains_teachers])


def _shares(cut: str) -> list[int]:
    shares = _numbers(cut, "/", "--cut", "60/0/40") if cut else []
    if shares and (len(shares) != 3 or sum(shares) != 100):
        raise InputError(f"--cut {cut}: expected percentages for train, dev and test that sum to 100, like 60/0/40")
    if shares and not shares[0]:
        raise InputError(f"--cut {cut}: leaves nothing to train on; give train a share, as in 60/0/40")
    return shares


def _numbers(text: str, separator: str, flag: str, example: str) -> list[int]:
    parts = [part.strip() for part in text.split(separator)]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"{flag} {text}: expected numbers like {example}")
    return [int(part) for part in parts]


def report_of(folder: Path) -> str:
    """The path of the report of a run that has just ended, or of its Markdown without the extra `report`."""
    from metakd.report.page import write_report

    try:
        return str(write_report(folder))
    except InputError as error:
        notice(f"no report.html: {error}")
        return str(folder / "results.md")
