"""The run that a command line means: its flags, a file of settings, and what its folder was begun with."""

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


def assemble_run(output: Path, data: str | None, config: Path | None, given: dict[str, Any], anew: bool = False) -> Run:
    """The run meant by the command line. Flags go before the config file, that before what the folder was begun
    with (unless it is made anew), that before the defaults."""
    load_library()
    from metakd.runs.run import Run
    from metakd.utils.artifacts import RUN_FILE, read_run
    from metakd.utils.locks import refuse_if_held

    refuse_if_held(output)
    begun = read_run(output) if (output / RUN_FILE).is_file() and not anew else None
    if data is None and begun is not None and begun["data"] is None:
        raise InputError(
            f"{output} was begun with tables in memory: go on from Python, or name the same rows by --data"
        )
    if data is None and begun is None:
        raise InputError(f"--data is missing, and {output} holds no run to go on with. {DATA_HELP}")
    values = dict(begun["settings"]) if begun else {}
    values |= read_settings_file(config) if config else {}
    assembled = Run.assemble(output, Settings.build(values | given), data or (begun or {}).get("data"))
    from metakd.inspection.inspector import inspect_dataset
    from metakd.inspection.tables import short_form

    sizes, *findings = short_form(inspect_dataset(assembled.data))
    console.print(printable(sizes), highlight=False, soft_wrap=True)
    for message in [*assembled.data.notices, *findings]:
        notice(message)
    return assembled


def assemble_all(
    output: Path, data: str | None, config: Path | None, given: dict[str, Any], resume: bool, overwrite: bool
) -> Run:
    """The run meant by the command line, with everything checked that can be before its folder is touched."""
    if resume and overwrite:
        raise InputError("--resume goes on with what is there, --overwrite removes it: give one of them")

    from metakd.utils.artifacts import RUN_FILE

    def assemble() -> Run:
        if (output / RUN_FILE).exists() and not resume and not overwrite:
            raise InputError(f"{output} is there already: --resume goes on with it, --overwrite makes it anew")
        assembled = assemble_run(output, data, config, given, anew=overwrite)
        from metakd.pipeline.evaluate import check_scorable

        check_scorable(assembled)
        return assembled

    return distributed.on_main_first(assemble)


@contextlib.contextmanager
def opened(
    output: Path,
    data: str | None,
    config: Path | None,
    given: dict[str, Any],
    check: Callable[[Run], Any] = lambda assembled: None,
) -> Iterator[Run]:
    """The run meant by the command line, begun, with its folder held: no other process may begin another there.

    `check` refuses what the command cannot do, before the folder is touched.
    """

    def assemble() -> Run:
        assembled = assemble_run(output, data, config, given)
        assembled.check_folder()
        check(assembled)
        return assembled

    assembled = distributed.on_main_first(assemble)
    from metakd.utils.locks import run_lock

    with run_lock(output):
        yield assembled.begin()
