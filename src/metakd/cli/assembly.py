"""What commands do before their work: check the flags, load the library, and read the data or assemble the run from
flags, a settings file and the run's folder. Faults that need no torch are reported before its import, which takes long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from metakd.cli.options import DATA_HELP
from metakd.config.setting_faults import without_effect
from metakd.config.settings import Settings
from metakd.config.settings_file import read_settings_file
from metakd.data.sources import is_hub_id, open_source
from metakd.utils import distributed
from metakd.utils.artifacts import RUN_FILE, read_run
from metakd.utils.console import console, notice
from metakd.utils.errors import InputError, collecting, flag, printable, raise_faults, require, shell_command

if TYPE_CHECKING:
    from metakd.data.dataset import MultiDomainDataset
    from metakd.runs.run import Run


class Request(NamedTuple):
    """The run that a command line asks for."""

    output: Path
    settings: Settings
    data: str
    overwrite: bool


def read_request(
    output: Path,
    data: str | None,
    config: Path | None,
    options: dict[str, Any],
    resume: bool = True,
    overwrite: bool = False,
) -> Request:
    """The request with the settings of, in order of precedence, flags, config file, run folder (unless overwritten) and
    defaults. Loads the library once nothing in it was refused."""

    def read() -> Request:
        if resume and overwrite:
            raise InputError("--resume continues the run in the folder, --overwrite replaces it: choose one of them")
        if (output / RUN_FILE).exists() and not resume and not overwrite:
            raise InputError(f"{output} already exists: continue it with --resume, or replace it with --overwrite")
        begun = read_run(output) if (output / RUN_FILE).is_file() and not overwrite else {}
        if not (place := data or begun.get("data")):
            if begun:
                continuing = "continue from Python, or pass the same rows with --data"
                raise InputError(f"{output} was started with tables in memory: {continuing}")
            why = "--overwrite starts from scratch" if overwrite else f"{output} has no run to continue"
            raise InputError(f"--data is missing: {why}. It takes {DATA_HELP[0].lower()}{DATA_HELP[1:]}")
        in_file = _in_file(config)
        values = _overlaid(_overlaid(begun.get("settings", {}), in_file), options)
        _notice_unused(in_file, values)
        if not data:
            refuse_moved(output, place)
        settings = _checked(place, values, options)
        return Request(output, settings, place, overwrite)

    request = distributed.on_main_first(read)
    load_library()
    return request


def assemble_run(request: Request, check: Callable[[Run], Any] = lambda run: None) -> Run:
    """The run of a request. `check` may refuse it before the folder is touched."""
    from metakd.inspection.inspector import inspect_dataset
    from metakd.inspection.tables import short_form
    from metakd.runs.run import Run
    from metakd.utils.locks import refuse_if_locked

    def assemble() -> Run:
        refuse_if_locked(request.output)
        assembled = Run.assemble(request.output, request.settings, request.data)
        sizes, *findings = short_form(inspect_dataset(assembled.data))
        console.print(printable(sizes), highlight=False, soft_wrap=True)
        for message in [*assembled.data.notices, *findings]:
            notice(message)
        if not request.overwrite:
            assembled.check_folder()
        check(assembled)
        return assembled

    return distributed.on_main_first(assemble)


@contextlib.contextmanager
def locked(assembled: Run) -> Iterator[Run]:
    """The run, begun with its folder locked, so that no other process can begin one there."""
    from metakd.utils.locks import run_lock

    with run_lock(assembled.folder):
        yield assembled.begin()


def refuse_moved(folder: Path, place: str) -> None:
    """InputError where a run's data is no longer in the place that its folder names."""
    if not is_hub_id(place) and not Path(place).exists():
        again = shell_command("run", "--resume", "--output", folder, "--data", "NEW")
        raise InputError(f"{place}: the data of {folder} is no longer there; if it has moved to NEW, run: {again}")


def read_data(
    data: str, config: Path | None, options: dict[str, Any], command: str, decided: Callable[[], Mapping[str, Any]]
) -> tuple[Settings, MultiDomainDataset]:
    """Settings and data of a `command` that starts several runs; loads the library.

    InputError for flags that the command sets itself (`decided`), unless they have the same value (None never has); a
    notice for such keys of the file.
    """
    in_file = _in_file(config)
    chosen = _checked(data, _overlaid(in_file, options), options)
    load_library()
    from metakd.data.dataset import load_dataset

    fixed = decided()
    flags = [k for k, v in fixed.items() if k in options and getattr(chosen, k) != v]
    keys = [k for k, v in fixed.items() if in_file.get(k, v) != v]
    usable = {k: v for k, v in in_file.items() if k not in keys}
    values = _overlaid(usable, options)
    _notice_unused(usable, values)
    settings = Settings.build(values)
    if flags:
        raise InputError(f"{', '.join(map(flag, flags))}: {command} sets this itself; leave it out")
    if keys:
        notice(f"--config: {', '.join(keys)} not used, because {command} sets this itself")
    dataset = load_dataset(data, settings.seed, **settings.reading())
    for message in dataset.notices:
        notice(message)
    return settings, dataset


def _notice_unused(in_file: Iterable[str], values: Collection[str]) -> None:
    """A notice of keys of the file that a flag has put aside."""
    if unused := [name for name in in_file if name not in values]:
        notice(f"--config: {', '.join(unused)} not used, because --teacher or --lora-rank decides that")


def _checked(data: str, values: Mapping[str, Any], typed: Collection[str]) -> Settings:
    """The settings with these values.

    InputError with all their faults, those that are `typed` and do nothing, and files that are missing; then for files
    that cannot be opened. A dataset on the hub is opened later, without progress bars.
    """
    paths = {"": data, "--unlabelled: ": values.get("unlabelled")}
    named = {of: path for of, path in paths.items() if path and isinstance(path, str | Path)}  # other types are faults
    missing = {of: path for of, path in named.items() if not is_hub_id(str(path)) and not Path(path).exists()}
    problems = [InputError(f"{of}{path}: no such file or folder") for of, path in missing.items()]
    with collecting(problems):
        settings = Settings.build(values)
        raise_faults("settings", without_effect(typed, settings))
    if problems:
        raise InputError("\n".join(map(str, problems)))
    if not is_hub_id(data):
        open_source(data, settings.encoding, settings.data_config)
    if settings.unlabelled is not None and not is_hub_id(settings.unlabelled):
        try:
            open_source(settings.unlabelled, settings.encoding, settings.data_config)
        except InputError as error:
            raise InputError(f"--unlabelled: {error}") from None
    return settings


def _overlaid(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which those of `after` come first; with a new teacher, so do defaults that depend on it."""
    dependent = {"teacher": ("base", "teacher_epochs"), "lora_rank": ("teacher_learning_rate",)}
    changed = [name for name in dependent if str(after.get(name, before.get(name))) != str(before.get(name))]
    overruled = {each for name in changed for each in dependent[name]}
    return {name: value for name, value in before.items() if name not in overruled} | dict(after)


def _in_file(config: Path | None) -> dict[str, Any]:
    return read_settings_file(config) if config else {}


def check_writable(output: Path, suffixes: str | Sequence[str], overwrite: bool) -> None:
    """InputError for a file that cannot or should not be written, before the work for it is done.

    `suffixes` are those of what it may hold: names without one will do, others will not.
    """
    suffixes = [suffixes] if isinstance(suffixes, str) else suffixes
    if str(output) == "-" or (output.exists() and not output.is_file()) or not output.absolute().parent.is_dir():
        raise InputError(f"--output {output}: must be a file in an existing folder")
    if output.suffix.lower() not in ("", *suffixes):
        raise InputError(f"--output {output}: the name must end in {' or '.join(suffixes)}")
    if output.exists() and not overwrite:
        raise InputError(f"--output {output}: already exists; replace it with --overwrite, or choose another name")


def load_library(*runs: Path) -> None:
    """Import the libraries for training, without their progress bars; InputError says which command installs them.

    Folders that have no run are refused before.
    """
    for folder in runs:
        read_run(folder)
    for module in ("torch", "transformers", "accelerate", "sklearn"):
        require(module, "train")
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as library_logging

    hub_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
