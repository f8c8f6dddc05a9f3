"""The options that subcommands share, and a flag for every setting."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from metakd.config.groups import GROUPS, READING
from metakd.config.settings import Settings
from metakd.utils.errors import flag

DATA_HELP = "A file (JSONL, CSV, TSV, Parquet; .gz), a folder with train, dev and test, or a hub dataset's id."
WIDEST_CHOICES = 24  # characters in which help lists choices beside their flag
BASE, MAX_LENGTH = (Settings.model_fields[name].default for name in ("base", "max_length"))
INSPECTED = (
    *("columns", "encoding", "data_config", "cut", "skip_bad_rows", "drop_leaks"),
    *("unlabelled_rows", "soft_labels", "probability_labels", "label_columns", "label_separator"),
)
Columns = Annotated[str, typer.Option(help="Columns that have other names: 'text=review,domain=genre'.")]
Encoding = Annotated[str, typer.Option(help="Encoding of a text file.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
Data = Annotated[str | None, typer.Option(help=DATA_HELP)]
Resume = Annotated[
    bool, typer.Option("--resume", metavar="", help="Continue after the last finished step or checkpoint.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Replace the run in this folder (other files stay).")
]
Replace = Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace the file of --output.")]
Config = Annotated[Path | None, typer.Option(help="YAML file with settings; flags override it.")]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for every setting to `command`; the values that the user set reach it as the dict `options`."""
    return _with_flags(command, GROUPS)


def with_reading(command: Callable[..., None]) -> Callable[..., None]:
    """The same for the settings of long texts, which are by default those that a model was scored with."""
    return _with_flags(command, {"Long texts": READING}, defaults=False)


def with_data_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The same for the settings that say how labelled data is read."""
    return _with_flags(command, {"Data": INSPECTED})


def _with_flags(
    command: Callable[..., None], groups: Mapping[str, Sequence[str]], defaults: bool = True
) -> Callable[..., None]:
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    del parameters["options"]
    names = {name: group for group, in_group in groups.items() for name in in_group if name not in parameters}
    for name, group in names.items():
        field = Settings.model_fields[name]
        switch = field.annotation is bool
        option = typer.Option(
            f"{flag(name)}/{flag(f'no-{name}')}" if switch else flag(name),
            help=_help(field, defaults),
            metavar="" if switch else _metavar(field.annotation),
            rich_help_panel=group,
        )
        kind = Annotated[bool | None, option] if switch else Annotated[str | None, option]
        parameters[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)

    def call(**values: Any) -> None:
        options = {name: values.pop(name, None) for name in names}
        command(**values, options={name: value for name, value in options.items() if value is not None})

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters.values()]
    call.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    return call


def _metavar(annotation: Any) -> str:
    """The type or choices of a setting as help shows them.

    Typer gets text, so that Settings.build can name all faults in one message.
    """
    if get_origin(annotation) is Literal:
        choices = "|".join(get_args(annotation))
        return f"<{choices}>" if len(choices) <= WIDEST_CHOICES else "<choice>"
    kinds = (annotation, *get_args(annotation))
    return next((f"<{kind.__name__}>" for kind in (int, float) if kind in kinds), "<text>")


def _help(field: FieldInfo, defaults: bool) -> str:
    """Description, long lists of choices, and default in round brackets: Rich takes square ones for its markup."""
    text, value = str(field.description), field.default
    if _metavar(field.annotation) == "<choice>":
        text += f" One of {', '.join(get_args(field.annotation))}."
    if value is None or value == {} or not defaults:
        return text
    if isinstance(value, bool):
        value = "on" if value else "off"
    return f"{text} (default: {', '.join(value) if isinstance(value, tuple) else value})"


def reading(columns: str, encoding: str) -> dict[str, Any]:
    chosen = Settings.build({"columns": columns, "encoding": encoding}, "--columns and --encoding")
    return {"columns": chosen.columns, "encoding": chosen.encoding}
