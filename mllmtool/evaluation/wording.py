"""How figures are put into words and tables: per cent, percentage points, names of quadrants."""

from mllmtool.metrics.statistics import Interval, Verdict

SYMBOLS: dict[Verdict, str] = {"kept": "✓", "forgot": "✗", "undecided": "?"}
MINUS = "−"


def percent(share: float | None) -> str:
    """`83.1 %`, or a dash for what was not measured."""
    return "–" if share is None else f"{signed(share).removeprefix('+')} %"


def points(delta: float | None) -> str:
    """`+3.2 pp`, `−0.4 pp`."""
    return "–" if delta is None else f"{signed(delta)} pp"


def signed(delta: float) -> str:
    """A share in percentage points, with its sign: `+3.2`, `−0.4`, `0.0`."""
    rounded = round(100 * delta, 1)
    sign = MINUS if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded):.1f}"


def span(interval: Interval) -> str:
    """`[−1.2, +0.4]`, in percentage points."""
    return f"[{signed(interval.lower)}, {signed(interval.upper)}]"


def quadrant(name: str) -> str:
    """`ood_text_id_image` -> `OOD text · ID image`."""
    text, _, image, _ = name.split("_")
    return f"{text.upper()} text · {image.upper()} image"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


FORMULAS = {
    "macro": "mean over tasks of the task's score",
    "micro": "mean over all items of the tasks",
    "delta": "score of the checkpoint - score of the base, on the same items",
    "above_chance_delta": "delta / (1 - c), c the chance of a right guess",
    "lost": "items of a lower score than the base's (1 -> 0)",
    "gained": "items of a higher score than the base's (0 -> 1)",
    "forgotten": "max(0, n10 / (1 - c) - c n00 / (1 - c)^2) / n",
    "learned": "max(0, n01 / (1 - c) - c n00 / (1 - c)^2) / n",
    "h_score": "2 O N / (O + N), O and N means over original and new tasks",
    "h_score_ratio": "2 o n / (o + n), o = mean of score / score of the base over original tasks,"
    " n = mean of score / score of new_reference over new tasks",
    "retention": "mean over original tasks of score / score of the base",
    "retention_above_chance": "as retention, of (score - c) / (1 - c)",
}
