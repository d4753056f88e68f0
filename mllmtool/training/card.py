"""The model card of what was tuned: `README.md`, as model hubs show it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mllmtool import __version__
from mllmtool.configs.base import Part
from mllmtool.configs.finetune import FinetuneConfig


def write_card(
    config: FinetuneConfig,
    seed: int,
    parts: Mapping[Part, Mapping[str, Any]],
    stopped_at: int | None,
    into: Path,
) -> None:
    """Write base, data, how each part was trained and how far it went."""
    head = {"base_model": config.model, "library_name": "transformers", "tags": ["mllmtool"]}
    rows = [
        f"| {part} | {_how(row['how'])} | {row['trainable']:,} of {row['weights']:,}"
        f" | {_share(row['drift']['changed'])} | {row['drift']['relative_l2'] or 0:.3g} |"
        for part, row in parts.items()
    ]
    given = config.model_dump(mode="json", exclude_defaults=True, exclude={"model", "samples"})
    text = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        f"# {Path(config.model).name}, fine-tuned",
        "",
        f"Made by `mllmtool finetune` {__version__}, seed {seed}, from `{config.model}` on"
        f" `{config.samples}`. `report.json` has the hashes of both, every setting and figure.",
        "",
        *([f"The probe stopped it at step {stopped_at}.", ""] if stopped_at else []),
        "| part | trained | weights that learn | weights that moved | relative L2 drift |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "Settings that are not the defaults:",
        "",
        "```yaml",
        yaml.safe_dump(given, sort_keys=True).rstrip(),
        "```",
    ]
    (into / "README.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def _how(how: Any) -> str:
    if isinstance(how, str):
        return how
    ((name, values),) = how.items()
    inside = ", ".join(f"{key} {value}" for key, value in values.items() if value)
    return f"{name} ({inside})" if inside else str(name)


def _share(share: float | None) -> str:
    return "none" if not share else f"{share:.1%}"
