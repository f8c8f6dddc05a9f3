"""The command line: the groups of commands, and how every command ends."""

import logging
import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.logging import RichHandler

from metakd.cli import data, deploy, labelling, report, steps
from metakd.utils import distributed
from metakd.utils.console import console, stdout
from metakd.utils.errors import (
    CheckError,
    InputError,
    LostProcessError,
    exhausted_resource,
    messages_with_flags,
    printable,
)
from metakd.utils.signals import Stopped, signals_handled

SHARED = ("run", "demo", "weigh", "teach", "distill")  # commands whose work several processes may share

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One pretrained language model and text from several domains in, one small classifier for each domain out.",
)

for group in (steps, data, labelling, report, deploy):  # as `metakd --help` lists them
    app.add_typer(group.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        stdout.print(f"metakd {metadata.version('metakd')}", highlight=False)
        raise typer.Exit


@app.callback()
def _before(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    if distributed.world_size() > 1 and context.invoked_subcommand not in SHARED:
        raise InputError(
            f"metakd {context.invoked_subcommand} runs in one process: start it without torchrun or accelerate launch, "
            f"which are for {', '.join(SHARED)}"
        )


def main() -> None:
    """Entry point: errors that users can fix print one message without a traceback, and exit with code 2.

    Code 1: a check failed or a resource is exhausted; 128 plus a signal's number: that signal stopped the command.
    """
    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    with signals_handled(), messages_with_flags():
        try:
            app()
        except Stopped as stop:
            if not hasattr(stop, "__notes__"):
                stop.add_note("Repeat the command: it continues from finished work, or starts again.")
            _fail(stop, str(stop), stop.exit_code)
        except (CheckError, LostProcessError) as error:
            _fail(error, f"Error: {error}", 1)
        except InputError as error:
            _fail(error, f"Error: {error}", 2)
        except Exception as error:
            if missing := exhausted_resource(error):
                _fail(error, f"Error: {missing}", 1)
            if isinstance(error, OSError):
                _fail(error, f"Error: {error}", 2)
            raise


def _fail(error: BaseException, message: str, code: int) -> None:
    console.quiet = console.quiet and isinstance(error, Stopped)  # a signal reaches all processes; one reports it
    text = "\n".join([message, *getattr(error, "__notes__", ())])
    console.print(printable(text), style="red", highlight=False, soft_wrap=True)
    sys.exit(code)
