"""The commands that deploy students: predict, export, fit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Column, Table

from metakd.cli.assembly import check_writable, load_library, read_data, refuse_moved
from metakd.cli.options import DATA_HELP, Columns, Config, Encoding, Replace, reading, with_reading, with_settings
from metakd.config.settings import LONGEST, Settings
from metakd.utils.console import notice, stdout
from metakd.utils.errors import InputError

if TYPE_CHECKING:
    from metakd.export.exporter import Exported
    from metakd.inference.by_domain import ByDomain
    from metakd.inference.classifier import Classifier

app = typer.Typer()


@app.command()
@with_reading
def predict(
    options: dict[str, Any],
    model: Annotated[
        Path,
        typer.Argument(
            help="Folder of a student or teacher, as trained or as exported; or of a run or of exports, whose student "
            "of a row's domain labels the row."
        ),
    ],
    input: Annotated[Path, typer.Option(help="File with text; for a run or exports also domain; optional text_pair.")],
    output: Annotated[
        Path,
        typer.Option(help="File to write, .jsonl, .csv or .parquet: the rows with predictions; '-' prints JSONL."),
    ],
    probabilities: Annotated[
        bool, typer.Option("--probabilities", metavar="", help="Also write the probabilities of all labels.")
    ] = False,
    columns: Columns = "",
    encoding: Encoding = "utf-8",
    overwrite: Replace = False,
) -> None:
    """Label the texts of a file, in order, however large it is."""
    if output.exists() and input.exists() and output.samefile(input):
        raise InputError(f"--output {output}: is the input file, which would be overwritten")
    if str(output) != "-":
        check_writable(output, (".jsonl", ".csv", ".parquet"), overwrite)
    Settings.build({"max_length": LONGEST} | options)  # a model has its own limit
    from metakd.data.examples import open_file
    from metakd.inference.files import label_file

    how = reading(columns, encoding)
    open_file(input, encoding)
    count = label_file(_open(model, options), input, output, **how, probabilities=probabilities)
    if str(output) != "-":
        stdout.print(f"{count} predictions: {output}")


def _open(folder: Path, reading: Mapping[str, Any]) -> Classifier | ByDomain:
    """The model in a folder, or the models of several domains; only those that are not exported need torch."""
    from metakd.data.schema import folder_name
    from metakd.inference.by_domain import ByDomain, models_by_domain
    from metakd.inference.classifier import Classifier
    from metakd.inference.layout import DESCRIPTION_FILE

    if not folder.is_dir():  # folders of domains with special characters have encoded names
        folder = folder.with_name(folder_name(folder.name))
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; students are in RUN/students/DOMAIN")
    by_domain = models_by_domain(folder)
    if not all((each / DESCRIPTION_FILE).is_file() for each in (by_domain.values() if by_domain else [folder])):
        load_library()
    return Classifier.from_pretrained(folder, **reading) if by_domain is None else ByDomain(by_domain, **reading)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="DIR")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder, with one folder per student.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights in 8 bits: a quarter of the size.")] = False,
    vocabulary: Annotated[
        Literal["keep", "domain"],
        typer.Option(help="'domain' keeps the embeddings of the domain's most frequent tokens, approximates others."),
    ] = "keep",
    web: Annotated[bool, typer.Option("--web", help="Add a web page in which they run; needs npm.")] = False,
    max_drop: Annotated[
        float, typer.Option(help="Largest accepted drop of mean accuracy: 0.005 is half a point.", min=0, max=1)
    ] = 0.005,
    force: Annotated[bool, typer.Option("--force", help="Also export students that lose more or are slower.")] = False,
    push_to_hub: Annotated[str, typer.Option(help="Upload them, private, as NAME-DOMAIN: 'me/reviews'.")] = "",
) -> None:
    """Export students to ONNX: to run without torch, checked against PyTorch, scored and timed."""
    load_library(folder)
    from metakd.data.schema import folder_name
    from metakd.export.exporter import export as export_run
    from metakd.export.model_cards import check_login, push
    from metakd.runs.run import Run
    from metakd.utils.artifacts import read_run

    if push_to_hub:
        check_login()
    if (begun := read_run(folder))["data"] is None:
        raise InputError(f"{folder} was started with tables in memory: export it from Python")
    refuse_moved(folder, begun["data"])
    run = Run.assemble(folder, Settings.build(begun["settings"]), begun["data"])
    how = {"int8": int8, "compact": vocabulary == "domain", "web": web, "force": force}
    exported = export_run(run, output, max_drop=max_drop, **how)
    stdout.print(_comparison(exported, int8))
    stdout.print(f"exported: {output}", soft_wrap=True)
    if web:
        serve = shlex.join(["python", "-m", "http.server", "--directory", str(output)])
        stdout.print(f"page:     http://localhost:8000, after `{serve}`", soft_wrap=True)
    if push_to_hub:
        folders = {student.domain: output / folder_name(student.domain) for student in exported}
        for address in push(folders, push_to_hub):
            stdout.print(f"uploaded: {address}", soft_wrap=True)


def _comparison(exported: Sequence[Exported], int8: bool) -> Table:
    """Each student as exported beside PyTorch."""
    from metakd.evaluation.tables import BUSY_NOTE

    numbers = [Column(name, justify="right") for name in ("accuracy", "before", "MB", "before", "ms", "before")]
    title = f"ONNX in {'int8' if int8 else 'float32'} beside PyTorch"
    dagger, note = ("†", f" {BUSY_NOTE}") if exported[0].busy else ("", "")
    caption = f"ms: median for one text, measured with the student of {exported[0].domain}.{note}"
    table = Table("domain", *numbers, title=title, caption=caption)
    for student in exported:
        figures = [
            (f"{100 * model.accuracy:.1f}", f"{model.bytes / 1e6:.1f}", f"{model.milliseconds:.2f}{dagger}")
            for model in (student.after, student.before)
        ]
        table.add_row(student.domain, *chain.from_iterable(zip(*figures, strict=True)))
    return table


@app.command()
@with_settings
def fit(
    options: dict[str, Any],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the models; may be used again.")],
    p95_ms: Annotated[float | None, typer.Option(help="Limit on the p95 latency of one text, in ms.", min=1e-3)] = None,
    max_mb: Annotated[float | None, typer.Option(help="Limit on model, tokenizer and labels, in MB.", min=1e-6)] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Lowest accepted accuracy of each domain on dev.", min=0, max=1)
    ] = None,
    also: Annotated[list[str] | None, typer.Option(help="A checkpoint to try as student; may be repeated.")] = None,
    most: Annotated[int, typer.Option(help="Students to train, the largest that fit.", min=1)] = 2,
    config: Config = None,
) -> None:
    """Find the best small model for each domain that a budget allows, measured on this machine."""
    if "student" in options:
        raise InputError("--student: fit tries students of several sizes; add a checkpoint with --also")
    settings, dataset = read_data(data, config, options, "fit", _decided)
    from metakd.evaluation.tables import BUSY_NOTE
    from metakd.export.budget_search import PICTURE_FILE
    from metakd.export.budget_search import fit as fit_models
    from metakd.export.candidates import Budget
    from metakd.report.page import write_tradeoff
    from metakd.runs.defaults import fitted

    result = fit_models(
        dataset, fitted(settings, dataset), output, Budget(p95_ms, max_mb, min_accuracy), also=also or [], most=most
    )
    numbers = [Column(name, justify="right") for name in ("dev", "test", "p95 ms", "MB")]
    title = f"Best models within the budget, of {len({form['name'] for form in result['tried']})} candidates"
    caption = BUSY_NOTE if any(form["busy"] for form in result["delivered"].values()) else None
    table = Table("domain", "model", *numbers, title=title, caption=caption)
    for domain, form in result["delivered"].items():
        scores = [f"{100 * form[name]:.1f}" if name in form else "" for name in ("accuracy", "test_accuracy")]
        p95 = f"{form['p95']:.2f}{'†' * form['busy']}"
        table.add_row(domain, form["name"], *scores, p95, f"{form['bytes'] / 1e6:.1f}")
    stdout.print(table)
    stdout.print(f"models: {output}/DOMAIN, what was tried: {output / 'fit.json'}", soft_wrap=True)
    try:
        write_tradeoff(result, output / PICTURE_FILE)
    except InputError as error:
        notice(f"no {PICTURE_FILE}: {error}")


def _decided() -> dict[str, Any]:
    """Settings that `fit` sets itself; None if its candidates differ in one."""
    from metakd.export.budget_search import FIXED_SETTINGS

    return FIXED_SETTINGS | {"student": None}
