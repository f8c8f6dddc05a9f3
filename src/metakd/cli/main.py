"""The command line: one module a group of commands, and what every one of them ends with."""

import logging
import sys

import typer
from rich.logging import RichHandler

from metakd.cli import data, deploy, report, steps
from metakd.utils import distributed
from metakd.utils.console import console
from metakd.utils.errors import CheckError, InputError, LostProcessError, exhausted_resource, printable
from metakd.utils.signals import Stopped, signals_handled

SHARED = ("run", "demo", "weigh", "teach", "distill")  # commands whose work several processes may share

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One large language model and text from several domains in, one small model for each domain out.",
)

for group in (steps, data, report, deploy):  # as `metakd --help` lists them
    app.add_typer(group.app)


@app.callback()
def _before(context: typer.Context) -> None:
    if distributed.world_size() > 1 and context.invoked_subcommand not in SHARED:
        raise InputError(
            f"metakd {context.invoked_subcommand} is the work of one process: start it without torchrun or accelerate "
            f"launch, which are for {', '.join(SHARED)}"
        )


def main() -> None:
    """Entry point: errors that users can fix are one message and exit code 2, without a traceback.

    Code 1: a check failed, or the machine ran out of something; 128 and a signal's number: it stopped the command.
    """
    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    with signals_handled():
        try:
            app()
        except Stopped as stop:
            if not hasattr(stop, "__notes__"):
                stop.add_note("The same command goes on with what is finished, or begins again.")
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
    console.quiet = console.quiet and isinstance(error, Stopped)  # a signal reaches all processes, and is said once
    text = "\n".join([message, *getattr(error, "__notes__", ())])
    console.print(printable(text), style="red", highlight=False, soft_wrap=True)
    sys.exit(code)
