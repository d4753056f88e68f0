"""Texts with named fields, `{like_this}`, for which values are put in; no code is ever run."""

import string
from collections.abc import Set

from mllmtool.errors import some


def template_fields(template: str) -> list[str]:
    """The names of the fields.

    Raises:
        ValueError: a field is anything but a plain name, or a brace is left open.
    """
    try:
        found = [parts[1:] for parts in string.Formatter().parse(template) if parts[1] is not None]
    except ValueError as error:
        raise ValueError(f"{error}; write {{{{ and }}}} for braces") from error
    for name, spec, turn in found:
        if not name or name.isdigit() or spec or turn or any(mark in name for mark in ".[]"):
            raise ValueError(f"{{{name}}}: a field is a plain name")
    return [str(name) for name, _, _ in found]


def known_fields(template: str, known: Set[str]) -> list[str]:
    """The names of the fields.

    Raises:
        ValueError: as `template_fields`, or a field is not among the known.
    """
    found = template_fields(template)
    unknown = [f"{{{name}}}" for name in found if name not in known]
    if unknown:
        fields = ", ".join(f"{{{name}}}" for name in sorted(known))
        raise ValueError(f"unknown field {some(unknown)}; fields are {fields}")
    return found
