"""The subcommands that bring students to where they work."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from metakd.cli_options import Columns, Encoding, load_library, reading
from metakd.errors import InputError
from metakd.progress import stdout

app = typer.Typer()


class Vocabulary(StrEnum):
    KEEP = "keep"
    DOMAIN = "domain"


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="DIR")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make, with one folder a student in it.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights in 8 bits: a quarter of the size.")] = False,
    vocabulary: Annotated[
        Vocabulary, typer.Option(help="'domain' leaves out pieces that no training text of the domain needs.")
    ] = Vocabulary.KEEP,
    max_drop: Annotated[float, typer.Option(help="Accuracy that may be lost on average.", min=0, max=1)] = 0.005,
    force: Annotated[bool, typer.Option("--force", help="Export what loses more or is slower, too.")] = False,
) -> None:
    """Students as ONNX: run without torch, checked against PyTorch, scored and timed."""
    load_library()
    from rich.table import Table

    from metakd.artifacts import read_run
    from metakd.config import Settings
    from metakd.export import export as export_run
    from metakd.runs import Run

    begun = read_run(folder)
    if begun["data"] is None:
        raise InputError(f"{folder} was begun with tables in memory: export it from Python")
    run = Run.assemble(folder, Settings.build(begun["settings"]), begun["data"])
    cut = vocabulary is Vocabulary.DOMAIN
    found = export_run(run, output, int8=int8, cut=cut, max_drop=max_drop, force=force)
    table = Table(title=f"ONNX in {'int8' if int8 else 'float32'} beside PyTorch", caption="one text at a time")
    for column in ("domain", "accuracy", "before", "MB", "before", "ms", "before"):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for own in found:
        pairs = zip(own.after, own.before, strict=True)
        shown = zip(pairs, ((100, 1), (1e-6, 1), (1, 2)), strict=True)
        table.add_row(own.domain, *(f"{factor * v:.{digits}f}" for pair, (factor, digits) in shown for v in pair))
    stdout.print(table)
    stdout.print(f"exported: {output}", soft_wrap=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a student or teacher, as trained or as exported.")],
    input: Annotated[Path, typer.Option(help="File with text, and optional text_pair and id.")],
    output: Annotated[Path, typer.Option(help="JSONL file to write: id, label, probability.")],
    columns: Columns = "",
    encoding: Encoding = "utf-8",
) -> None:
    """Label the texts of a file, in order, however large it is."""
    check_writable(output)
    if not model.is_dir():
        raise InputError(f"{model}: no such folder; students lie in RUN/students/DOMAIN")
    from metakd.inference import Classifier, label_file

    how: dict[str, Any] = reading(columns, encoding)
    if not (model / "model.onnx").is_file():
        load_library()
    count = label_file(Classifier.load(model), input, output, **how)
    stdout.print(f"{count} predictions: {output}")


def check_writable(output: Path) -> None:
    """Refuse a file that cannot be written before the work for it is done."""
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise InputError(f"--output {output}: has to be a file in a folder that is there")
