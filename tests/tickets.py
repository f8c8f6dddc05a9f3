"""Support tickets as users have them: short, in two languages, imbalanced, with duplicates, empty cells and long texts.

`rows(seed)` has 900 valid rows of three domains and four labels, and six with an empty cell. A script, it writes them:

    python tests/tickets.py tickets.jsonl
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

THINGS = {
    "shop": [("shoes", "Schuhe"), ("lamp", "Lampe"), ("coat", "Jacke"), ("kettle", "Kanne"), ("desk", "Tisch")],
    "bank": [("card", "Karte"), ("account", "Konto"), ("loan", "Kredit"), ("transfer", "Zahlung"), ("app", "App")],
    "travel": [("flight", "Flug"), ("hotel", "Hotel"), ("train", "Zug"), ("ticket", "Karte"), ("seat", "Platz")],
}
OPENINGS = [
    ("Hello,", "Hallo,"),
    ("Hi there,", "Guten Tag,"),
    ("Good morning, I write about my {thing}.", "Guten Morgen, es geht um {thing}."),
    ("My number is {number}.", "Meine Nummer ist {number}."),
    ("Second message about this {thing}.", "Zweite Nachricht wegen {thing}."),
    ("", ""),
]
BODIES = {
    "refund": [
        ("I paid twice for the {thing}, please send one amount back", "{thing} wurde doppelt abgebucht, bitte zurück"),
        ("I want my money back, the {thing} is not what I chose", "ich will mein Geld zurück, {thing} passt nicht"),
        ("the {thing} was charged although I never agreed to it", "für {thing} wurde ohne mich Geld eingezogen"),
        ("you owe me {number} euros for the {thing}", "ihr schuldet mir {number} Euro für {thing}"),
        ("when is the sum for my {thing} paid out to me", "wann wird mir der Betrag für {thing} erstattet"),
    ],
    "delay": [
        ("I have waited {number} days for my {thing}", "ich warte seit {number} Tagen auf {thing}"),
        ("my {thing} should have been here last week", "{thing} sollte letzte Woche da sein"),
        ("nothing has moved with the {thing} since Monday", "seit Montag tut sich nichts mit {thing}"),
        ("how much longer will the {thing} take", "wie lange dauert {thing} denn noch"),
        ("the {thing} is late again and nobody tells me why", "{thing} kommt wieder zu spät, niemand sagt warum"),
    ],
    "access": [
        ("I cannot sign in to see my {thing}", "ich komme nicht hinein, um {thing} zu sehen"),
        ("the code for the {thing} never reaches my phone", "der Code für {thing} kommt nie an"),
        ("my password is refused when I open the {thing}", "mein Passwort für {thing} wird abgelehnt"),
        ("the page of my {thing} stays white", "die Seite zu {thing} bleibt weiß"),
        ("I am locked out after {number} attempts", "nach {number} Versuchen bin ich gesperrt"),
    ],
    "praise": [
        ("thank you, the {thing} is all I hoped for", "danke, {thing} ist wie erhofft"),
        ("your colleague solved it in {number} minutes, great", "gelöst in {number} Minuten, großartig"),
        ("so happy with the {thing}, I will tell my friends", "ich bin so froh über {thing}"),
        ("the {thing} worked at once, well done", "{thing} hat sofort geklappt, gut gemacht"),
        ("best {thing} in {number} years", "beste Erfahrung mit {thing} seit {number} Jahren"),
    ],
}
CLOSINGS = [
    ("Please answer soon.", "Bitte um Antwort."),
    ("I paid on Monday.", "Bezahlt habe ich am Montag."),
    ("The password of my friend works.", "Bei Freunden klappt das Passwort."),
    ("Otherwise I am happy with you.", "Sonst bin ich zufrieden."),
    ("I have waited long to write this.", "Ich habe lange gewartet, das zu schreiben."),
    ("", ""),
]
SHARES = {"refund": 48, "delay": 30, "access": 14, "praise": 8}  # percent
SWAPPED = 0.04  # share of rows with the label of another text, as people make mistakes
VALID, LONG, REPEATED, EMPTY = 900, 12, 30, 6


def _text(draw: random.Random, domain: str, label: str) -> str:
    language = int(draw.random() < 0.4)
    thing, number = draw.choice(THINGS[domain])[language], draw.randint(2, 990)
    parts = [draw.choice(kind)[language] for kind in (OPENINGS, BODIES[label], CLOSINGS)]
    return " ".join(part.format(thing=thing, number=number) for part in parts if part)


def rows(seed: int = 0) -> list[dict[str, Any]]:
    """All rows, faulty ones (an empty text or label) included."""
    draw, made = random.Random(seed), list[dict[str, Any]]()
    for _ in range(VALID - LONG - REPEATED):
        domain = draw.choices([*THINGS], (6, 3, 1))[0]
        label = draw.choices([*SHARES], [*SHARES.values()])[0]
        written = draw.choice([*SHARES]) if draw.random() < SWAPPED else label
        made.append({"text": _text(draw, domain, label), "label": written, "domain": domain})
    for row in draw.sample(made, LONG):
        history = " ".join(draw.choice(OPENINGS)[0].format(thing="case", number=7) for _ in range(300))
        made.append(row | {"text": f"{row['text']} {history}"})
    made += draw.sample(made, REPEATED)
    made += [row | {"text" if i % 2 else "label": ""} for i, row in enumerate(draw.sample(made, EMPTY))]
    draw.shuffle(made)
    return made


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
