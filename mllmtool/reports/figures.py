"""How every picture is written: the same bytes for the same figure, and no text read as TeX."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PLAIN: Any = {"text.parse_math": False, "font.family": "DejaVu Sans"}


def save_png(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as PNG, whatever the path's suffix."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=dpi, format="png", metadata={"Software": None})
