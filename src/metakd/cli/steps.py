"""The commands for the steps of a run, and `run` for all of them."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metakd.cli.assembly import assemble_run, check_writable, load_library, locked, read_request
from metakd.cli.options import (
    Columns,
    Config,
    Data,
    Encoding,
    Output,
    Overwrite,
    Replace,
    Resume,
    reading,
    with_reading,
    with_settings,
)
from metakd.cli.report import report_of
from metakd.config.settings import DEMO_DATA, DEMO_SETTINGS
from metakd.data.examples import open_file
from metakd.utils import distributed
from metakd.utils.artifacts import read_run
from metakd.utils.console import notice, stdout
from metakd.utils.errors import CheckError, InputError, flag, listed, with_resume_hint

if TYPE_CHECKING:
    from metakd.runs.run import Run

app = typer.Typer()


@app.command()
@with_settings
def run(
    options: dict[str, Any],
    output: Output,
    data: Data = None,
    config: Config = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Only print plan, sizes and time.")] = False,
) -> None:
    """Run all steps: weigh, teach, distill, evaluate."""
    request = read_request(output, data, config, options, resume, overwrite)
    from metakd.evaluation.tables import rich_table
    from metakd.pipeline.evaluate import check_scorable
    from metakd.pipeline.plan import check_disk, print_plan
    from metakd.pipeline.run_all import clear, leftovers, run_all
    from metakd.report.facts import Findings
    from metakd.report.summary import verdict
    from metakd.utils.locks import run_lock

    assembled = assemble_run(request, check_scorable)
    fresh = replace(assembled, folder=output / "new")  # where no step is done
    if dry_run:
        distributed.on_main(lambda: print_plan(fresh if overwrite else assembled))
        return
    if overwrite:
        distributed.on_main(lambda: check_disk(fresh, output, leftovers(assembled)))
        clear(assembled)
    with run_lock(output):
        assembled.check_folder()
        distributed.on_main(lambda: check_disk(assembled, output))
        begun = assembled.begin()
        with with_resume_hint(f"metakd run --output {shlex.quote(str(output))} --resume"):
            table = rich_table(run_all(begun), stdout.width)
            report, outcome = distributed.on_main(lambda: (str(report_of(output)), verdict(Findings.read(output))))
            stdout.print(outcome, highlight=False)
            stdout.print(table)
        place = output if output.name not in ("", "..") else output.resolve()
        onnx = place.with_name(f"{place.name}-onnx")
        export = shlex.join(["metakd", "export", str(output), "--output", str(onnx), "--int8"])
        stdout.print(f"students: {output / 'students'}\nreport:   {report}\nnext:     {export}", soft_wrap=True)


@app.command()
@with_settings
def demo(
    options: dict[str, Any], output: Output = Path("runs/demo"), resume: Resume = False, overwrite: Overwrite = False
) -> None:
    """`run` on the reviews that come with metakd: four domains, four small models, a few minutes."""
    run(output=output, data=str(DEMO_DATA), config=DEMO_SETTINGS, resume=resume, overwrite=overwrite, **options)


@app.command()
@with_settings
def weigh(options: dict[str, Any], output: Output, data: Data = None, config: Config = None) -> None:
    """First step: how much each training example transfers (prototype scores and instance weights)."""
    request = read_request(output, data, config, options)
    from metakd.pipeline.weigh import check_weighable, weigh

    with locked(assemble_run(request, check_weighable)) as begun:
        stdout.print(f"instance weights: {weigh(begun)}")


@app.command()
@with_settings
def teach(options: dict[str, Any], output: Output, data: Data = None, config: Config = None) -> None:
    """Second step: the meta-teacher, fine-tuned on all domains."""
    request = read_request(output, data, config, options)
    from metakd.pipeline.teach import score_as_it_is, teach

    with locked(assemble_run(request, lambda run: run.features.instance_weights(()))) as begun:
        distributed.on_main(lambda: score_as_it_is(begun))
        stdout.print(f"meta-teacher: {teach(begun)}")


@app.command()
@with_settings
def distill(
    options: dict[str, Any],
    output: Output,
    data: Data = None,
    config: Config = None,
    domain: Annotated[list[str] | None, typer.Option(help="Only this domain; may be repeated.")] = None,
) -> None:
    """Third step: one student for each domain."""

    def check(assembled: Run) -> None:
        if unknown := [name for name in domain or [] if name not in assembled.data.domains]:
            there = ", ".join(assembled.data.domains)
            raise InputError(f"--domain {listed(unknown)}: no such domain; there are {there}")
        if has_teacher(METHODS[assembled.settings.method]):
            check_teacher(assembled)

    request = read_request(output, data, config, options)
    from metakd.methods import METHODS
    from metakd.methods.base import has_teacher
    from metakd.pipeline.checks import check_teacher
    from metakd.pipeline.distill import distill_all
    from metakd.utils.locks import refuse_if_locked

    assembled = assemble_run(request, check)
    distributed.on_main(lambda: refuse_if_locked(output))
    chosen = domain or assembled.data.domains
    folders = distill_all(assembled.begin(), chosen, [assembled.settings.method])
    for name, folder in zip(chosen, folders, strict=True):
        stdout.print(f"student of {name}: {folder}")


@app.command()
@with_reading
def evaluate(
    options: dict[str, Any],
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="DIR")],
    data: Annotated[Path | None, typer.Option(help="Labelled file to score on instead of the run's data.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for the scores, with --data.")] = None,
    columns: Columns = "",
    encoding: Encoding = "utf-8",
    overwrite: Replace = False,
) -> None:
    """Last step: score all models on test (or dev, if there is no test), or teacher and students on a file."""
    if (data is None) != (output is None):
        raise InputError("--data and --output go together: the file to score on, and the file for its scores")
    if data is None and (columns or encoding != "utf-8" or overwrite):
        raise InputError("--columns, --encoding and --overwrite need --data and --output: add these, or leave them out")
    if data is not None and options:
        flags = ", ".join(map(flag, options))
        raise InputError(f"{flags}: with --data, models read as the run was scored; score it first, without --data")
    if output is not None:
        check_writable(output, ".json", overwrite)
    if data is not None:
        open_file(data, encoding)
    elif read_run(folder)["data"] is None:
        raise InputError(f"{folder} was started with tables in memory: evaluate it from Python, or use --data")
    load_library(folder)
    from metakd.evaluation.tables import rich_table
    from metakd.pipeline.evaluate import evaluate, evaluate_file
    from metakd.runs.folders import REPORT_FILE

    if data is not None and output is not None:
        results = evaluate_file(folder, data, output, **reading(columns, encoding))
    else:
        with locked(assemble_run(read_request(folder, None, None, options))) as begun:
            results = evaluate(begun)
            if (folder / REPORT_FILE).exists():
                notice(
                    f"{REPORT_FILE} has the scores of before; draw it again with `metakd report` and the flags of then"
                )
    stdout.print(rich_table(results, stdout.width))
    stdout.print(f"scores: {output or folder / 'results.json'}")


@app.command()
def reproduce(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="DIR")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to repeat it. By default DIR-reproduced.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The run's data, if it has moved.")] = None,
    unlabelled: Annotated[str | None, typer.Option(help="Its text without labels, if that has moved.")] = None,
) -> None:
    """Repeat a run from its manifest, and check that the results are the same, bit for bit."""
    load_library(folder)
    from metakd.pipeline.reproduce import reproduce as repeat

    place = output or folder.resolve().parent / f"{folder.resolve().name}-reproduced"
    moved = [word for name, to in (("data", data), ("unlabelled", unlabelled)) if to for word in (f"--{name}", to)]
    with with_resume_hint(shlex.join(["metakd", "reproduce", str(folder), "--output", str(place), *moved])):
        repeated = repeat(folder, place, data, unlabelled)
    if repeated.differences:
        unlike = [f"{name}: {', '.join(changes)}" for name, changes in repeated.differences.items()]
        elsewhere = [f"other environment: {difference}" for difference in repeated.environments]
        raise CheckError("\n".join([f"{place} differs from {folder}", *unlike, *elsewhere]))
    stdout.print(f"{place} is the same as {folder}, bit for bit: {', '.join(repeated.compared)}", soft_wrap=True)


@app.command()
def methods() -> None:
    """List the methods by which students learn."""
    load_library()
    from metakd.methods import METHODS

    for name, kind in METHODS.items():
        typer.echo(f"{name:17}  {(inspect.getdoc(inspect.getmodule(kind)) or '').splitlines()[0]}")
