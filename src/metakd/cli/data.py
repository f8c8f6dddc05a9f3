"""Commands that inspect data and machine before anything is trained; they need no torch."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from metakd.cli.options import BASE, DATA_HELP, INSPECTED, MAX_LENGTH, with_data_flags
from metakd.config.settings import Settings
from metakd.utils.console import notice, stdout
from metakd.utils.errors import InputError, raise_faults

app = typer.Typer()


@app.command()
def data(
    release: Annotated[str, typer.Argument(help="amazon or multinli.")],
    source: Annotated[str, typer.Option(help="The raw release: a folder, a .tar.gz (amazon), a hub id (multinli).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for train.jsonl, dev.jsonl, ...")],
) -> None:
    """Convert a paper's raw release to the paper's split, ready for `metakd run --data`."""
    from metakd.experiments.releases import prepare

    dataset = prepare(release, source, output)
    for message in dataset.notices:
        notice(message)
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in dataset.splits.items())
    stdout.print(f"{sizes}: {output}")


@app.command()
@with_data_flags
def inspect(
    options: dict[str, Any],
    data: Annotated[str, typer.Argument(help=DATA_HELP, metavar="DATA")],
    base: Annotated[str, typer.Option(help="Encoder whose tokenizer counts lengths.")] = BASE,
    max_length: Annotated[
        int, typer.Option(help="Tokens that models read at once; longer texts are counted.", min=4)
    ] = MAX_LENGTH,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Inspect data: counts, lengths, duplicates, leaks, contradictory labels, characteristic terms."""
    settings = Settings.build(options)
    from metakd.inspection.inspector import inspect_data
    from metakd.inspection.tables import findings, tables
    from metakd.models.hub import tokenizer_file

    how = {name: getattr(settings, name) for name in INSPECTED}
    try:
        tokenizer: Path | None = tokenizer_file(base)
    except InputError as error:
        tokenizer = None
        notice(f"lengths are counted in words, not tokens. {error}")
    report = inspect_data(data, **how, tokenizer=tokenizer, max_length=max_length)
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    elif report["rows"]:
        stdout.print(*tables(report), sep="\n")
        for finding in findings(report) or ["no problems found"]:
            typer.echo(f"- {finding}")
    raise_faults(f"{data} cannot be used for training yet", report["faults"])


@app.command()
def doctor(
    base: Annotated[str, typer.Option(help="Encoder to look for.")] = BASE,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where results would go.")] = Path("runs"),
) -> None:
    """Show what this machine has, what is missing, and which command helps."""
    from metakd.inspection.doctor import examine

    report = examine(base, output)
    for finding in report:
        typer.echo(f"{finding.state:8} {finding.name}: {finding.message}")
        if finding.remedy:
            typer.echo(f"{'':8} -> {finding.remedy}")
    if any(finding.state == "missing" for finding in report):
        raise typer.Exit(1)
