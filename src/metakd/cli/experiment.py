"""The subcommand that compares methods on the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from metakd.cli.options import DATA_HELP, Config, load_library, refuse_decided, with_settings
from metakd.config.settings import Settings
from metakd.config.yaml_file import read_settings_file
from metakd.utils.console import notice, stdout
from metakd.utils.errors import InputError

app = typer.Typer()


@app.command()
@with_settings
def experiment(
    given: dict[str, Any],
    name: Annotated[
        str, typer.Argument(help="main, tune, ablation, size, unseen, scarce-5, ...; docs/howto/compare.md has them.")
    ],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for rows and tables; may be used again.")],
    config: Config = None,
    seeds: Annotated[str, typer.Option(help="Seeds of teachers and students: '0,1,2'.")] = "0,1,2",
    cut: Annotated[str, typer.Option(help="Cut all rows anew: percent for train/dev/test, such as '60/0/40'.")] = "",
    only: Annotated[str | None, typer.Option(help="Lines of the experiment, if not all: 'meta_kd,single_kd'.")] = None,
    split: Annotated[str | None, typer.Option(help="What is scored: 'dev' to choose by, 'test' to report.")] = None,
    reference: Annotated[str | None, typer.Option(help="Variant that the others are held against.")] = None,
    tuned: Annotated[Path | None, typer.Option(help="tune.json, whose best trial each line takes.")] = None,
    merge: Annotated[list[Path] | None, typer.Option(help="rows.jsonl of another machine; may be repeated.")] = None,
) -> None:
    """Compare methods, parts or sizes over several seeds; goes on where it was stopped."""
    values = read_settings_file(config) if config else {}
    if "seed" in given:
        raise InputError("--seed: an experiment has several; write --seeds 0,1,2")
    settings = Settings.build(values | given)
    numbers, shares = _numbers(seeds, ",", "--seeds", "0,1,2"), _shares(cut)
    load_library()
    refuse_decided("an experiment", _decided(name), given, values)
    from metakd.data.dataset import load_dataset
    from metakd.experiments.runner import experiment as run_experiment
    from metakd.experiments.runner import report_name
    from metakd.experiments.tables import markdown

    found = load_dataset(data, settings.seed, **settings.reading())
    found = found.resplit(*shares[1:]) if shares else found
    for message in found.notices:
        notice(message)
    asked: dict[str, Any] = {
        "seeds": numbers,
        "only": [] if only is None else [line.strip() for line in only.split(",")],
        "split": split,
        "reference": reference,
        "tuned": tuned,
        "merge": merge or [],
    }
    results = run_experiment(name, found, settings, output, **asked)
    stem = report_name(name, asked["only"], split, reference, tuned)
    stdout.print(markdown(results), soft_wrap=True)
    stdout.print(f"report: {output / f'{stem}.md'} and {stem}.json", soft_wrap=True)


def _decided(name: str) -> dict[str, Any]:
    """What the lines of an experiment set themselves; None where they differ in it, or nothing is made of it."""
    from metakd.experiments.trial import ALWAYS
    from metakd.experiments.variants import TUNING_GRID

    own = ["seed", "method", "bootstrap", *["student"] * (name == "size"), *(TUNING_GRID[0] if name == "tune" else ())]
    return ALWAYS | dict.fromkeys(own)


def _shares(cut: str) -> list[int]:
    shares = _numbers(cut, "/", "--cut", "60/0/40") if cut else []
    if shares and (len(shares) != 3 or sum(shares) != 100):
        raise InputError(f"--cut {cut}: expected percent for train, dev and test that make 100, such as 60/0/40")
    if shares and not shares[0]:
        raise InputError(f"--cut {cut}: leaves nothing to learn from; give train a share, such as 60/0/40")
    return shares


def _numbers(text: str, separator: str, flag: str, example: str) -> list[int]:
    parts = [part.strip() for part in text.split(separator)]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"{flag} {text}: expected numbers such as {example}")
    return [int(part) for part in parts]
