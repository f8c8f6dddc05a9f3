"""The options that subcommands share, and a flag for every setting."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from metakd.config.settings import Settings

DATA_HELP = "A file (JSONL, CSV, TSV, Parquet; .gz), a folder with train, dev and test, or a hub dataset's id."
BASE, MAX_LENGTH = (Settings.model_fields[name].default for name in ("base", "max_length"))
Columns = Annotated[str, typer.Option(help="Columns that have other names: 'text=review,domain=genre'.")]
Encoding = Annotated[str, typer.Option(help="Encoding of a text file.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
Data = Annotated[str | None, typer.Option(help=DATA_HELP)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last whole step or checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove the run that is there, and nothing else.")]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings; flags override it.")]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for every setting to `command`; the values that the user set reach it as the dict `options`."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    del parameters["options"]
    for name, field in Settings.model_fields.items():
        flag, switch = name.replace("_", "-"), field.annotation is bool
        option = typer.Option(
            f"--{flag}/--no-{flag}" if switch else f"--{flag}",
            help=_help(field),
            metavar=None if switch else _metavar(field.annotation),
            rich_help_panel="Settings",
        )
        kind = Annotated[bool | None, option] if switch else Annotated[str | None, option]
        parameters[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)

    def call(**values: Any) -> None:
        options = {name: values.pop(name, None) for name in Settings.model_fields}
        command(**values, options={name: value for name, value in options.items() if value is not None})

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters.values()]
    call.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    return call


def _metavar(annotation: Any) -> str:
    """The type of a setting as help shows it. Typer gets text: Settings.build names all faults in one message."""
    if get_origin(annotation) is Literal:
        return "<choice>"
    kinds = (annotation, *get_args(annotation))
    return next((f"<{kind.__name__}>" for kind in (int, float) if kind in kinds), "<str>")


def _help(field: FieldInfo) -> str:
    """Description, choices, and default in round brackets: Rich takes square ones for its markup."""
    text, value = str(field.description), field.default
    if get_origin(field.annotation) is Literal:
        text += f" One of {', '.join(get_args(field.annotation))}."
    if value is None or value == {}:
        return text
    if isinstance(value, bool):
        value = "on" if value else "off"
    return f"{text} (default: {','.join(value) if isinstance(value, tuple) else value})"


def reading(columns: str, encoding: str) -> dict[str, Any]:
    chosen = Settings.build({"columns": columns, "encoding": encoding}, "--columns and --encoding")
    return {"columns": chosen.columns, "encoding": chosen.encoding}
