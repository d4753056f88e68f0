"""Recipes' scripts as modules, found by their path as they find each other."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[2] / "recipes"


def script(path: str) -> Any:
    """A script by its path under `recipes`, without its suffix."""
    for folder in (RECIPES, (RECIPES / path).parent):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return import_module(Path(path).name)
