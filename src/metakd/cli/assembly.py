"""Opens the run that a command line means: its flags, a file of settings, and what its folder was begun with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metakd.cli.options import DATA_HELP, load_library
from metakd.config.settings import Settings
from metakd.config.yaml_file import read_settings_file
from metakd.utils import distributed
from metakd.utils.console import console, notice
from metakd.utils.errors import InputError, printable

if TYPE_CHECKING:
    from metakd.runs.run import Run


def assemble_run(
    output: Path, data: str | None, config: Path | None, options: dict[str, Any], overwrite: bool = False
) -> Run:
    """The run meant by the command line.

    Flags override the config file, that overrides what the folder was begun with (unless it is overwritten), that the
    defaults.
    """
    load_library()
    from metakd.inspection.inspector import inspect_dataset
    from metakd.inspection.tables import short_form
    from metakd.runs.run import Run
    from metakd.utils.artifacts import RUN_FILE, read_run
    from metakd.utils.locks import refuse_if_locked

    refuse_if_locked(output)
    begun = read_run(output) if (output / RUN_FILE).is_file() and not overwrite else None
    if not (data := data or (begun or {}).get("data")):
        raise InputError(
            f"{output} was begun with tables in memory: go on from Python, or name the same rows by --data"
            if begun
            else f"--data is missing, and {output} holds no run to go on with. {DATA_HELP}"
        )
    in_file = read_settings_file(config) if config else {}
    assembled = Run.assemble(output, Settings.build((begun or {}).get("settings", {}) | in_file | options), data)
    sizes, *findings = short_form(inspect_dataset(assembled.data))
    console.print(printable(sizes), highlight=False, soft_wrap=True)
    for message in [*assembled.data.notices, *findings]:
        notice(message)
    return assembled


def assemble_all(
    output: Path, data: str | None, config: Path | None, options: dict[str, Any], resume: bool, overwrite: bool
) -> Run:
    """The run meant by the command line, with everything checked that can be before its folder is touched."""
    if resume and overwrite:
        raise InputError("--resume goes on with what is there, --overwrite removes it: give one of them")
    from metakd.utils.artifacts import RUN_FILE

    def assemble() -> Run:
        if (output / RUN_FILE).exists() and not resume and not overwrite:
            raise InputError(f"{output} is there already: --resume goes on with it, --overwrite replaces it")
        assembled = assemble_run(output, data, config, options, overwrite)
        from metakd.pipeline.evaluate import check_scorable

        check_scorable(assembled)
        return assembled

    return distributed.on_main_first(assemble)


def assemble_checked(
    output: Path,
    data: str | None,
    config: Path | None,
    options: dict[str, Any],
    check: Callable[[Run], Any] = lambda assembled: None,
) -> Run:
    """The run meant by the command line. `check` refuses what the command cannot do, before the folder is touched."""

    def assemble() -> Run:
        assembled = assemble_run(output, data, config, options)
        assembled.check_folder()
        check(assembled)
        return assembled

    return distributed.on_main_first(assemble)


@contextlib.contextmanager
def locked(assembled: Run) -> Iterator[Run]:
    """The run begun, with its folder locked: no other process may begin another there."""
    from metakd.utils.locks import run_lock

    with run_lock(assembled.folder):
        yield assembled.begin()
