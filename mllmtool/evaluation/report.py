"""Write what people read: Markdown, pictures, and one HTML page."""

from collections.abc import Sequence
from pathlib import Path

from mllmtool.evaluation.page import Browsed, page
from mllmtool.evaluation.plots import draw
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.scoring import TaskAnswers
from mllmtool.evaluation.tables import markdown
from mllmtool.evaluation.transitions import cards, num_changes

SHOWN = 300  # changed answers on the page, at most


def write_pages(results: Results, tasks: Sequence[TaskAnswers], title: str, into: Path) -> None:
    """Write `report.md`, `report.html` and the PNGs."""
    plots = draw(results, into)
    (into / "report.md").write_text(markdown(results, title), encoding="utf-8")
    browsed = Browsed(cards(results, tasks, SHOWN), num_changes(tasks))
    html = page(results, title, plots, browsed)
    (into / "report.html").write_text(html, encoding="utf-8")
