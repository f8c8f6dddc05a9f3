"""The options that subcommands share, and a flag for every setting."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from metakd.config.settings import Settings
from metakd.utils.console import notice
from metakd.utils.errors import InputError, require

DATA_HELP = "A file (JSONL, CSV, TSV, Parquet; .gz), a folder with train, dev and test, or a hub dataset's id."
BASE, MAX_LENGTH = (Settings.model_fields[name].default for name in ("base", "max_length"))
Columns = Annotated[str, typer.Option(help="Columns that have other names: 'text=review,domain=genre'.")]
Encoding = Annotated[str, typer.Option(help="Encoding of a text file.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
Data = Annotated[str | None, typer.Option(help=DATA_HELP)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last whole step or checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove the run that is there, and nothing else.")]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings; flags go before it.")]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` a flag for every setting; those that were given reach it as the dict `given`."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]
    flags = []
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        switch = field.annotation is bool
        option = typer.Option(
            f"{flag}/--no-{name.replace('_', '-')}" if switch else flag,
            help=f"{field.description}{_default(field.default)}",
            rich_help_panel="Settings",
        )
        kind = Annotated[bool | None, option] if switch else Annotated[str | None, option]
        flags.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))

    def call(**values: Any) -> None:
        given = {name: values.pop(name) for name in Settings.model_fields}
        command(**values, given={name: value for name, value in given.items() if value is not None})

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    call.__signature__ = inspect.Signature([*keyword_only, *flags])  # type: ignore[attr-defined]
    return call


def _default(value: Any) -> str:
    """In round brackets: Rich takes square ones for its markup, and shows nothing of them."""
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return f" (default: {'on' if value else 'off'})"
    return f" (default: {','.join(value) if isinstance(value, tuple) else value})"


def refuse_decided(what: str, decided: Mapping[str, Any], given: Mapping[str, Any], in_file: Mapping[str, Any]) -> None:
    """InputError for flags of what the command sets itself, unless they say the same (None never is the same).

    A notice for such keys of a file.
    """
    if flags := [f"--{name.replace('_', '-')}" for name, own in decided.items() if given.get(name, own) != own]:
        raise InputError(f"{', '.join(flags)}: {what} decides this itself; leave it out")
    if keys := [name for name, own in decided.items() if in_file.get(name, own) != own]:
        notice(f"--config: {', '.join(keys)} not used, as {what} decides this itself")


def reading(columns: str, encoding: str) -> dict[str, Any]:
    chosen = Settings.build({"columns": columns, "encoding": encoding}, "--columns and --encoding")
    return {"columns": chosen.columns, "encoding": chosen.encoding}


def load_library() -> None:
    """Import what trains models, without its own progress bars; InputError says which command installs it."""
    for module in ("torch", "transformers", "accelerate", "sklearn"):
        require(module, "train")
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as library_logging

    hub_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
