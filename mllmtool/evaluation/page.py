"""One HTML page that needs nothing else: styles, script and pictures are inside, no network.

What models and items say is untrusted: it is escaped, and the page's own policy refuses every
script but the one that it came with.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from mllmtool.evaluation import tables, wording
from mllmtool.evaluation.colours import ink, shade
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.scoring import QUADRANTS
from mllmtool.evaluation.transitions import Lost
from mllmtool.metrics.choices import LETTERS

TEMPLATES = Path(__file__).parent / "templates"


def page(results: Results, title: str, pictures: Sequence[Path], lost: Sequence[Lost]) -> str:
    """The whole page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= _words()
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        title=title,
        results=results,
        quadrants=QUADRANTS,
        notes=list(tables.notes(results)),
        pictures={path.stem: _data_uri(path) for path in pictures},
        lost=lost,
        lost_counts=_lost_counts(results),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _words() -> dict[str, Any]:
    return {
        "percent": wording.percent,
        "points": wording.points,
        "signed": wording.signed,
        "span": wording.span,
        "quadrant_name": wording.quadrant,
        "symbols": wording.SYMBOLS,
        "shade": shade,
        "ink": ink,
        "letters": LETTERS,
    }


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _lost_counts(results: Results) -> int:
    return sum(cell.vs_base.lost for cell in results.cells if cell.vs_base)
