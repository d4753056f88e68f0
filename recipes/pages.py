"""The end of a recipe: its findings, tables and pictures as Markdown, as one HTML page, as JSON."""

from __future__ import annotations

import argparse
import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from findings import Finding, sentence

from mllmtool.evaluation.page import TEMPLATES

HEAD = ("finding", "points (95 %)", "held above", "over", "paper", "verdict")
HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<title>{{ page.title }}</title>
<style>{{ style | safe }}
td { white-space: normal }</style>
</head>
<body>
<header><div class="meta"><h1>{{ page.title }}</h1><span>{{ page.scale }} scale</span></div>
<p class="headline">{{ page.lead }}</p><p>{{ sentence }}</p></header>
<main>
{% for name, source in pictures.items() %}
<figure><img src="{{ source }}" alt="{{ name }}" style="max-width:100%"></figure>
{% endfor %}
{% for table in tables %}
<section><h2>{{ table.title }}</h2><div class="scroll"><table>
<thead><tr>{% for name in table.head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div></section>
{% endfor %}
<section><h2>Notes</h2><ul class="notes">
{% for note in page.notes %}
<li>{{ note }}</li>
{% endfor %}
</ul></section>
</main>
</body>
</html>
"""


class Table(NamedTuple):
    """Rows of text under a head."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Page(NamedTuple):
    """What a recipe ends with; `pictures` are PNG files in its folder, by what they show."""

    name: str
    title: str
    lead: str
    scale: str
    findings: Sequence[Finding]
    tables: Sequence[Table]
    pictures: Mapping[str, str]
    notes: Sequence[str] = ()


def parser(doc: str) -> argparse.ArgumentParser:
    """What a script that writes a page is told first: the scale, and the folder to make."""
    found = argparse.ArgumentParser(description=doc.splitlines()[0])
    found.add_argument("scale")
    found.add_argument("out", type=Path)
    return found


def write(page: Page, out: Path, figures: Any) -> None:
    """Write `NAME.json` with the figures, `NAME.html` and, last and whole, `NAME.md`."""
    found = [
        {**one._asdict(), "figure": list(map(_finite, one.figure)), "verdict": one.verdict}
        for one in page.findings
    ]
    values = {"scale": page.scale, "findings": found, "figures": figures}
    text = json.dumps(values, indent=1, allow_nan=False)
    (out / f"{page.name}.json").write_text(text + "\n", encoding="utf-8")
    (out / f"{page.name}.html").write_text(html(page, out), encoding="utf-8")
    partial = out / f".{page.name}.md"
    partial.write_text(markdown(page), encoding="utf-8")
    partial.rename(out / f"{page.name}.md")


def markdown(page: Page) -> str:
    """The page as Markdown; pictures are links."""
    lines = [f"# {page.title}, {page.scale} scale", "", page.lead, ""]
    lines += [sentence(page.findings, page.scale), ""]
    lines += [f"![{alt}]({name})" for alt, name in page.pictures.items()]
    for table in _tables(page):
        lines += ["", f"## {table.title}", "", _row(table.head), "|---" * len(table.head) + "|"]
        lines += [_row(row) for row in table.rows]
    if page.notes:
        lines += ["", *(f"- {note}" for note in page.notes)]
    return "\n".join(lines) + "\n"


def html(page: Page, folder: Path) -> str:
    """The page as one HTML file; pictures are inside."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    pictures = {
        alt: "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode()
        for alt, name in page.pictures.items()
    }
    return environment.from_string(HTML).render(
        page=page,
        sentence=sentence(page.findings, page.scale),
        tables=_tables(page),
        pictures=pictures,
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def _tables(page: Page) -> list[Table]:
    rows = [
        (one.claim, str(one.figure), f"{100 * one.least:+.1f}", one.over, one.paper, one.verdict)
        for one in page.findings
    ]
    return [Table("Findings", HEAD, rows), *page.tables]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
