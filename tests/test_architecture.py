"""The layer table of ARCHITECTURE.md, held."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mllmtool"
NO_TORCH = {"errors", "configs", "reports", "context", "runner", "data", "cli"}
HEAVY = {"torch", "transformers", "peft", "accelerate", "safetensors"}
ONLY_IN = {
    "transformers": {"models", "training"},
    "peft": {"training"},
    "typer": {"cli"},
    "yaml": {"cli", "configs", "data", "evaluation", "training"},
    "matplotlib": {"evaluation", "fusion", "reports", "tailoring", "training"},
    "jinja2": {"evaluation"},
}


def layers() -> dict[str, int]:
    text = (PACKAGE / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| (\d) \| ([a-z_ ]+) \|", text, flags=re.MULTILINE)
    return {name: int(level) for level, names in rows for name in names.split()}


def unit(path: Path) -> str:
    """The package or module right under `mllmtool` that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def violations(owner: str, source: str) -> list[str]:
    level, found = layers(), []
    for module in imports(source):
        root, _, rest = module.partition(".")
        if root == "mllmtool" and rest:
            other = rest.split(".")[0]
            if other != owner and level[other] >= level[owner]:
                found.append(f"{owner} imports {other}")
        if root in HEAVY and owner in NO_TORCH:
            found.append(f"{owner} imports {root}")
        if root in ONLY_IN and owner not in ONLY_IN[root]:
            found.append(f"{owner} imports {root}")
    return found


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.parent != PACKAGE or p.stem in layers()]


def test_every_module_has_a_layer() -> None:
    units = {unit(p) for p in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert units == set(layers())


def test_imports_point_down() -> None:
    found = [
        f"{path.name}: {line}"
        for path in sources()
        for line in violations(unit(path), path.read_text())
    ]
    assert found == []


def test_commands_do_not_import_each_other() -> None:
    for path in (PACKAGE / "commands").glob("*.py"):
        others = [m for m in imports(path.read_text()) if m.startswith("mllmtool.commands")]
        assert others == [], path.name


def test_the_probe_notices() -> None:
    assert violations("data", "from mllmtool.commands import fuse") == ["data imports commands"]
    assert violations("fusion", "import mllmtool.models.parts") == ["fusion imports models"]
    assert violations("configs", "import torch") == ["configs imports torch"]
    assert violations("fusion", "from transformers import AutoModel") == [
        "fusion imports transformers"
    ]


def test_help_and_bad_flags_load_no_torch() -> None:
    code = (
        "import sys, mllmtool.cli as c\n"
        "sys.argv = ['mllmtool', *sys.argv[1:]]\n"
        "try:\n    c.main()\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(str('torch' in sys.modules))"
    )
    for argv in (["--help"], ["tailor", "--help"], ["fuse", "--method", "nonsense"]):
        done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, check=True)
        assert done.stderr.endswith(b"False"), argv
