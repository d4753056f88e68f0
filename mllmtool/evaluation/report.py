"""Write what people read: Markdown, pictures, one HTML page, and tables for their papers."""

from collections.abc import Sequence
from pathlib import Path

from mllmtool.data.suites import Suite
from mllmtool.evaluation.page import Browsed, page
from mllmtool.evaluation.plots import draw
from mllmtool.evaluation.records import write_records
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.scoring import TaskAnswers
from mllmtool.evaluation.tables import latex, markdown
from mllmtool.evaluation.transitions import cards, num_changes

SHOWN = 300  # changed answers on the page, at most


def write_pages(results: Results, tasks: Sequence[TaskAnswers], suite: Suite, into: Path) -> None:
    """Write `report.md`, `report.html`, the PNGs, and `tables`."""
    write_page(results, tasks, f"Forgetting on {suite.path.name}", into)
    write_records(results, into / "tables")
    (into / "tables" / "tables.tex").write_text(latex(results), encoding="utf-8")


def write_page(results: Results, tasks: Sequence[TaskAnswers], title: str, into: Path) -> None:
    """Write `report.md`, `report.html` and the PNGs."""
    plots = draw(results, into)
    (into / "report.md").write_text(markdown(results, title), encoding="utf-8")
    browsed = Browsed(cards(results, tasks, SHOWN), num_changes(tasks))
    html = page(results, title, plots, browsed)
    (into / "report.html").write_text(html, encoding="utf-8")
