"""An experiment's results as Markdown."""

from collections.abc import Mapping
from typing import Any

from metakd.evaluation.statistics import are_tested, points
from metakd.evaluation.tables import as_markdown, escaped, percent


def markdown(results: Mapping[str, Any]) -> str:
    """The table and the verdict of an experiment; of `tune`, all candidates of each variant."""
    if "best" in results:
        return _choice(results)
    domains, against = list(results["examples"]), results["against"]
    tests = [f"{escaped(results['reference'])} minus it", "p (Holm)"][: 2 if are_tested(against) else 1]
    rows = [["", *map(escaped, domains), "average", "95 % interval", "± seeds", *tests]]
    for name, model in {**results["teachers"], **results["students"]}.items():
        tests = [""] * len(tests)
        if other := against.get(name):
            p = other.get("p_holm", 1)
            tests = [points(other), f"{p:.3f}" if p >= 0.001 else "< 0.001"][: len(tests)]
        scores = [percent(accuracy) for accuracy in (*(model["domains"][d] for d in domains), model["mean"])]
        deviation = percent(model["deviation"]) if model["deviation"] else ""  # 0 of one seed
        rows.append([escaped(name), *scores, "-".join(map(percent, model["interval"])), deviation, *tests])
    text = f"{_scored(results)} {results['verdict']}"
    if "tuned" in results:
        text += " Each variant has the settings that `tune` chose for it."
    if lost := [_kept(name, results) for name in results.get("minus_teacher", {})]:
        text += f" Students minus their teachers: {'; '.join(lost)}."
    return f"{as_markdown(rows)}\n{escaped(text)}\n{_checks(results['checks'])}"


def _choice(results: Mapping[str, Any]) -> str:
    """The average of every candidate for each variant, the best in bold."""
    most = max(len(best["candidates"]) for best in results["best"].values())
    rows = [["epochs at a learning rate: average", *[""] * most]]
    for variant, best in results["best"].items():
        row = [variant]
        for name in best["candidates"]:
            text = f"{name.removeprefix(f'{variant}, ')}: {percent(results['students'][name]['mean'])}"
            row.append(f"**{text}**" if name == best["chosen"] else text)
        rows.append(row)
    text = f"{_scored(results)} The best candidate for each variant is in bold. Differences between candidates are not "
    text += "tested, because they are what is chosen by."
    if teachers := [f"{name} {100 * model['mean']:.1f}" for name, model in results["teachers"].items()]:
        text += f" Teachers: {', '.join(teachers)}."
    return f"{as_markdown(rows)}\n{escaped(text)}\n"


def _scored(results: Mapping[str, Any]) -> str:
    """Which split of which data is scored, and the seeds."""
    counts = ", ".join(f"{domain} {count}" for domain, count in results["examples"].items())
    seeds = ", ".join(map(str, results["seeds"]))
    return f"Accuracy in percent on {results['split']} of {results['data']} ({counts} examples); seeds {seeds}."


def _kept(name: str, results: Mapping[str, Any]) -> str:
    """A student's accuracy minus its teacher's, in percentage points, and the share that is kept."""
    lost, student = results["minus_teacher"][name], results["students"][name]["mean"]
    return f"{name} {points(lost)} ({100 * student / ((student - lost['mean']) or 1.0):.1f} percent kept)"


def _checks(checks: Mapping[str, Mapping[str, float]]) -> str:
    """Probes of the teachers, and effective shares of the weights, where they are known: between 0 and 1."""
    names = list(dict.fromkeys(name for values in checks.values() for name in values))
    rows = [["", *names]]
    rows += [[v, *(f"{values[n]:.3f}" if n in values else "" for n in names)] for v, values in checks.items()]
    return f"\nWhat weights and domain loss came to, as shares of 1:\n\n{as_markdown(rows)}" if names else ""
