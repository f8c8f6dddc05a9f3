"""What commands do before their work: load the library, check the flags, and read the data or assemble the run from
flags, a settings file and the run's folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metakd.cli.options import DATA_HELP
from metakd.config.settings import Settings, flag, read_settings_file
from metakd.utils import distributed
from metakd.utils.console import console, notice
from metakd.utils.errors import InputError, printable, require

if TYPE_CHECKING:
    from metakd.data.dataset import MultiDomainDataset
    from metakd.runs.run import Run


def assemble_run(
    output: Path,
    data: str | None,
    config: Path | None,
    options: dict[str, Any],
    check: Callable[[Run], Any] = lambda run: None,
    resume: bool = True,
    overwrite: bool = False,
) -> Run:
    """The run that the command line describes. `check` may refuse it before the folder is touched."""
    if resume and overwrite:
        raise InputError("--resume continues the run in the folder, --overwrite replaces it: choose one of them")
    load_library()
    from metakd.utils.artifacts import RUN_FILE

    def assemble() -> Run:
        if (output / RUN_FILE).exists() and not resume and not overwrite:
            raise InputError(f"{output} already exists: continue it with --resume, or replace it with --overwrite")
        assembled = _assemble(output, data, config, options, overwrite)
        if not overwrite:
            assembled.check_folder()
        check(assembled)
        return assembled

    return distributed.on_main_first(assemble)


def _assemble(output: Path, data: str | None, config: Path | None, options: dict[str, Any], overwrite: bool) -> Run:
    """The run with the settings of, in order of precedence, flags, config file, run folder (unless overwritten) and
    defaults."""
    from metakd.inspection.inspector import inspect_dataset
    from metakd.inspection.tables import short_form
    from metakd.runs.run import Run
    from metakd.utils.artifacts import RUN_FILE, read_run
    from metakd.utils.locks import refuse_if_locked

    refuse_if_locked(output)
    begun = read_run(output) if (output / RUN_FILE).is_file() and not overwrite else {}
    if not (data := data or begun.get("data")):
        raise InputError(
            f"{output} was started with tables in memory: continue from Python, or pass the same rows with --data"
            if begun
            else f"--data is missing, and {output} has no run to continue. {DATA_HELP}"
        )
    settings = Settings.build(begun.get("settings", {}) | _in_file(config) | options)
    assembled = Run.assemble(output, settings, data)
    sizes, *findings = short_form(inspect_dataset(assembled.data))
    console.print(printable(sizes), highlight=False, soft_wrap=True)
    for message in [*assembled.data.notices, *findings]:
        notice(message)
    return assembled


@contextlib.contextmanager
def locked(assembled: Run) -> Iterator[Run]:
    """The run, begun with its folder locked, so that no other process can begin one there."""
    from metakd.utils.locks import run_lock

    with run_lock(assembled.folder):
        yield assembled.begin()


def read_data(
    data: str, config: Path | None, options: dict[str, Any], command: str, decided: Mapping[str, Any]
) -> tuple[Settings, MultiDomainDataset]:
    """Settings and data of a `command` that starts several runs.

    InputError for flags that the command sets itself (`decided`), unless they have the same value (None never has); a
    notice for such keys of the file.
    """
    from metakd.data.dataset import load_dataset

    in_file = _in_file(config)
    settings = Settings.build(in_file | options)
    flags, keys = ([k for k, v in decided.items() if values.get(k, v) != v] for values in (options, in_file))
    if flags:
        raise InputError(f"{', '.join(map(flag, flags))}: {command} sets this itself; leave it out")
    if keys:
        notice(f"--config: {', '.join(keys)} not used, because {command} sets this itself")
    dataset = load_dataset(data, settings.seed, **settings.reading())
    for message in dataset.notices:
        notice(message)
    return settings, dataset


def _in_file(config: Path | None) -> dict[str, Any]:
    return read_settings_file(config) if config else {}


def check_writable(output: Path) -> None:
    """InputError for a file that cannot be written, before the work for it is done."""
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise InputError(f"--output {output}: must be a file in an existing folder")


def load_library() -> None:
    """Import the libraries for training, without their progress bars; InputError says which command installs them."""
    for module in ("torch", "transformers", "accelerate", "sklearn"):
        require(module, "train")
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as library_logging

    hub_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
