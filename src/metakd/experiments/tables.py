"""An experiment's results as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from metakd.evaluation.statistics import points
from metakd.evaluation.tables import escaped


def markdown(results: Mapping[str, Any]) -> str:
    """The table and the verdict of an experiment; of `tune`, all candidates of each variant."""
    if "best" in results:
        return _choice(results)
    domains, against = list(results["examples"]), results["against"]
    tests = (f"{escaped(results['reference'])} minus it", "p (Holm)")
    rows = [["", *map(escaped, domains), "average", "95 % interval", "± seeds", *tests]]
    for name, model in {**results["teachers"], **results["students"]}.items():
        other = against.get(name)
        rows.append(
            [
                escaped(name),
                *(f"{100 * model['domains'][domain]:.1f}" for domain in domains),
                f"{100 * model['mean']:.1f}",
                "-".join(f"{100 * end:.1f}" for end in model["interval"]),
                f"{100 * model['deviation']:.1f}" if model["deviation"] else "",  # 0 of one seed
                points(other) if other else "",
                (f"{other['p_holm']:.3f}" if other["p_holm"] >= 0.001 else "< 0.001") if other else "",
            ]
        )
    text = f"{_scored(results)} {results['verdict']}"
    if "tuned" in results:
        text += " Each variant has the settings that `tune` chose for it."
    if lost := [_kept(name, results) for name in results.get("minus_teacher", {})]:
        text += f" Students minus their teachers: {'; '.join(lost)}."
    return table(rows) + "\n" + escaped(text) + "\n" + _checks(results["checks"])


def _choice(results: Mapping[str, Any]) -> str:
    """The average of every candidate for each variant, the best in bold."""
    most = max(len(best["candidates"]) for best in results["best"].values())
    rows = [["epochs at a learning rate: average", *[""] * most]]
    for variant, best in results["best"].items():
        row = [variant]
        for name in best["candidates"]:
            text = f"{name.removeprefix(f'{variant}, ')}: {100 * results['students'][name]['mean']:.1f}"
            row.append(f"**{text}**" if name == best["chosen"] else text)
        rows.append(row)
    text = f"{_scored(results)} The best candidate for each variant is in bold. Differences between candidates are not "
    text += "tested, because they are what is chosen by."
    if teachers := [f"{name} {100 * model['mean']:.1f}" for name, model in results["teachers"].items()]:
        text += f" Teachers: {', '.join(teachers)}."
    return table(rows) + "\n" + escaped(text) + "\n"


def _scored(results: Mapping[str, Any]) -> str:
    """Which split of which data is scored, and the seeds."""
    counts = ", ".join(f"{domain} {count}" for domain, count in results["examples"].items())
    seeds = ", ".join(map(str, results["seeds"]))
    return f"Accuracy in percent on {results['split']} of {results['data']} ({counts} examples); seeds {seeds}."


def _kept(name: str, results: Mapping[str, Any]) -> str:
    """A student's accuracy minus its teacher's, in percentage points, and the share that is kept."""
    lost, student = results["minus_teacher"][name], results["students"][name]["mean"]
    return f"{name} {points(lost)} ({100 * student / (student - lost['mean']):.1f} percent kept)"


def _checks(checks: Mapping[str, Mapping[str, float]]) -> str:
    """Probes of the teachers, and effective shares of the weights, where they are known: between 0 and 1."""
    names = list(dict.fromkeys(name for values in checks.values() for name in values))
    rows = [["", *names]]
    rows += [[v, *(f"{values[n]:.3f}" if n in values else "" for n in names)] for v, values in checks.items()]
    return f"\nWhat weights and domain loss came to, as shares of 1:\n\n{table(rows)}" if names else ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a header and rows; numbers, in all columns but the first, stand at the right."""
    header, *body = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---", *["---:"] * (len(header) - 1)], *body))
