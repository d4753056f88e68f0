"""One HTML page that needs nothing else: styles, script and pictures are inside, no network.

What models and items say is untrusted: it is escaped, and the page's own policy refuses every
script but the one that it came with.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import jinja2

from mllmtool.evaluation import tables, wording
from mllmtool.evaluation.colours import heat
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.scoring import QUADRANTS
from mllmtool.evaluation.transitions import Card
from mllmtool.metrics.statistics import Interval

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Browsed:
    """Items whose answers changed, and how many changes there are of which these show some."""

    cards: Sequence[Card]
    total: int

    @property
    def shown(self) -> int:
        """Changes shown."""
        return sum(len(card.changes) for card in self.cards)

    @property
    def tasks(self) -> list[str]:
        """Tasks that the cards are of."""
        return list(dict.fromkeys(card.task for card in self.cards))

    @property
    def checkpoints(self) -> list[str]:
        """Checkpoints that the cards are of."""
        found = chain.from_iterable(card.changes for card in self.cards)
        return list(dict.fromkeys(change.checkpoint for change in found))


def page(results: Results, title: str, plots: Mapping[str, str], browsed: Browsed) -> str:
    """The whole page as HTML; `plots` are SVG elements by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= _words()
    environment.filters["unbroken"] = unbroken
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        title=title,
        results=results,
        base=results.base.label,
        cells={(cell.checkpoint, cell.task): cell for cell in results.cells},
        tasks={task.name: task for task in results.tasks},
        scale=Scale.of(results),
        aside=any("mischoice" in cell.metrics for cell in results.cells),
        answered=[
            cell for cell in results.cells if cell.letter_hist or "mischoice" in cell.metrics
        ],
        notes=list(tables.notes(results)),
        plots=plots,
        browsed=browsed,
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@dataclass(frozen=True)
class Scale:
    """The axis of the whiskers in the table of cells, ends in shares."""

    low: float
    high: float
    margin: float

    @classmethod
    def of(cls, results: Results) -> "Scale":
        """Wide enough for every interval, for nought and for the margin."""
        spans = [cell.vs_base.ci for cell in results.cells if cell.vs_base]
        low = min([span.lower for span in spans], default=0.0)
        high = max([span.upper for span in spans], default=0.0)
        return cls(min(low, -2 * results.margin), max(high, 2 * results.margin), results.margin)

    def at(self, delta: float) -> str:
        """Where a delta lies, in per cent of the width."""
        return f"{100 * (delta - self.low) / (self.high - self.low):.1f}%"

    def width(self, span: Interval) -> str:
        """How long an interval is, in per cent of the width."""
        return f"{100 * (span.upper - span.lower) / (self.high - self.low):.1f}%"


def bars(counts: Mapping[str, int]) -> Iterator[tuple[str, int, str, float]]:
    """For each letter: its name, its count, its share in per cent, and how deep its colour is."""
    total = max(1, sum(counts.values()))
    for place, (name, number) in enumerate(counts.items()):
        depth = 0.18 + 0.77 * place / max(1, len(counts) - 2)
        yield name, number, f"{100 * number / total:.1f}", 0.0 if name == "null" else depth


def unbroken(text: str) -> str:
    """The text with its units kept on the line of their numbers."""
    return re.sub(r"(?<=\d) (?=%|pp)", "\N{NO-BREAK SPACE}", text)


def _words() -> dict[str, Any]:
    return {
        "percent": wording.percent,
        "points": wording.points,
        "signed": wording.signed,
        "span": wording.span,
        "quadrant_name": wording.quadrant,
        "symbols": wording.SYMBOLS,
        "heat": heat,
        "bars": bars,
        "quadrants": QUADRANTS,
    }
