"""An experiment's results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metakd.evaluation.statistics import points
from metakd.evaluation.tables import escaped


def markdown(results: Mapping[str, Any]) -> str:
    """The table and the verdict of an experiment; of trials, which one of each line is best."""
    if "best" in results:
        return _choice(results)
    domains, against = list(results["examples"]), results["against"]
    header = [
        "",
        *map(escaped, domains),
        "average",
        "95 % interval",
        "± seeds",
        f"{escaped(results['reference'])} minus it",
        "p (Holm)",
    ]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, found in {**results["teachers"], **results["students"]}.items():
        low, high = found["interval"]
        lines.append(
            [
                escaped(name),
                *(f"{100 * found['domains'][domain]:.1f}" for domain in domains),
                f"{100 * found['mean']:.1f}",
                f"{100 * low:.1f}-{100 * high:.1f}",
                f"{100 * found['deviation']:.1f}" if found["deviation"] else "",  # 0 of one seed
                *_difference(against.get(name)),
            ]
        )
    told = f"{_scored(results)} {results['verdict']}"
    if "tuned" in results:
        told += " Each line with the settings of its best trial."
    lost = [_kept(name, results) for name in results.get("minus_teacher", {})]
    told += f" Students minus their teachers: {'; '.join(lost)}." if lost else ""
    return table(lines) + "\n" + escaped(told) + "\n" + _checks(results["checks"])


def _choice(results: Mapping[str, Any]) -> str:
    """The average of every trial of each line, the best in bold."""
    most = max(len(found["trials"]) for found in results["best"].values())
    rows = [["passes at a rate: average", *[""] * most], ["---", *["---:"] * most]]
    for line, found in results["best"].items():
        means = {name: 100 * results["students"][name]["mean"] for name in found["trials"]}
        told = {name: f"{name.removeprefix(f'{line}, ')}: {mean:.1f}" for name, mean in means.items()}
        rows.append([line, *(f"**{own}**" if name == found["trial"] else own for name, own in told.items())])
    taught = [f"{name} {100 * found['mean']:.1f}" for name, found in results["teachers"].items()]
    words = f"{_scored(results)} The best of each line in bold; differences between trials are not tested, as they are "
    words += "what is chosen by." + (f" Teachers: {', '.join(taught)}." if taught else "")
    return table(rows) + "\n" + escaped(words) + "\n"


def _scored(results: Mapping[str, Any]) -> str:
    """Which split of which data a report scores, and the seeds."""
    counts = ", ".join(f"{domain} {count}" for domain, count in results["examples"].items())
    told = f"Accuracy in percent on {results['split']} of {results['data']} ({counts} examples); seeds "
    return f"{told}{', '.join(map(str, results['seeds']))}."


def _kept(name: str, results: Mapping[str, Any]) -> str:
    """What a student has lost to the teacher that has taught it, in points and as a share."""
    found, own = results["minus_teacher"][name], results["students"][name]["mean"]
    return f"{name} {points(found)} ({100 * own / (own - found['mean']):.1f} percent kept)"


def _checks(checks: Mapping[str, Mapping[str, float]]) -> str:
    """What weights and domain loss came to, where it is known: shares between 0 and 1."""
    names = list(dict.fromkeys(name for found in checks.values() for name in found))
    lines = [["", *names], ["---", *["---:"] * len(names)]]
    lines += [[v, *(f"{own[n]:.3f}" if n in own else "" for n in names)] for v, own in checks.items()]
    return f"\nWhat weights and domain loss came to, as shares of 1:\n\n{table(lines)}" if names else ""


def table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _difference(found: Mapping[str, Any] | None) -> list[str]:
    return (
        ["", ""]
        if found is None
        else [points(found), f"{found['p_holm']:.3f}" if found["p_holm"] >= 0.001 else "< 0.001"]
    )
