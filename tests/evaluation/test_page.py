"""The page: whole, offline, the same bytes again, and proof against what models say."""

import base64
import hashlib
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import factories
import pytest
from answers_factory import checkpoint, marks, results_of, task_answers
from PIL import Image

from mllmtool.evaluation.findings import find
from mllmtool.evaluation.plots import draw
from mllmtool.evaluation.report import write_pages
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.scoring import TaskAnswers
from mllmtool.evaluation.tables import markdown
from mllmtool.evaluation.transitions import lost

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>{{7*7}}"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
N = 40


def tasks_of(folder: Path) -> list[TaskAnswers]:
    """Two tasks with pictures; everything that a model or an item says is hostile."""
    factories.colour_samples(folder, N)
    new = {"base": marks(4, N), "ft": marks(30, N), "mix": marks(28, N)}
    old = {"base": marks(36, N), "ft": marks(9, N), "mix": marks(35, N)}
    tasks = [
        task_answers("new", "id/id", new, role="new"),
        task_answers("old", "ood/id", old),
    ]
    return [hostile(one, folder) for one in tasks]


def hostile(one: TaskAnswers, folder: Path) -> TaskAnswers:
    items = tuple(
        item.model_copy(update={"images": (f"{n}.png",), "question": HOSTILE})
        for n, item in enumerate(one.task.items)
    )
    answers = {
        label: [replace(row, response=f"{row.response}\n{HOSTILE}") for row in rows]
        for label, rows in one.answers.items()
    }
    file = one.task.file.model_copy(update={"image_root": "images"})
    task = replace(one.task, path=folder / "task.yaml", file=file, items=items)
    return replace(one, task=task, answers=answers)


def results_for(tasks: list[TaskAnswers]) -> Results:
    rows = [
        checkpoint("base", same_as_base=True),
        checkpoint("ft", made_by="finetune"),
        checkpoint("mix", made_by="fuse wise-ft", interpolates="sha of ft", weight=0.5),
    ]
    results = results_of(*tasks, rows=rows)
    return results.model_copy(update={"findings": find(results)})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    tasks = tasks_of(folder)
    write_pages(results_for(tasks), tasks, "A <title> & more", folder)
    return folder


class Tags(HTMLParser):
    """Every start tag, and the text of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def test_what_models_say_is_inert(made: Path) -> None:
    html = (made / "report.html").read_text()
    tags = Tags(html)
    assert [tag for tag, _ in tags.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in tags.tags for name in attributes)
    assert html.count("&lt;/script&gt;&lt;script&gt;") > 10
    assert "{{7*7}}" in html
    assert "<title>A &lt;title&gt; &amp; more</title>" in html


def test_nothing_is_fetched(made: Path) -> None:
    html = (made / "report.html").read_text()
    tags = Tags(html)
    sources = [
        value
        for _, attributes in tags.tags
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "action", "data"}
    ]
    assert len(sources) > 10
    assert all((value or "").startswith("data:image/") for value in sources)
    assert "url(" not in html
    assert "@import" not in html


def test_its_policy_allows_its_own_script_only(made: Path) -> None:
    tags = Tags((made / "report.html").read_text())
    policy = next(
        attributes["content"] or ""
        for tag, attributes in tags.tags
        if tag == "meta" and "http-equiv" in attributes
    )
    digest = base64.b64encode(hashlib.sha256(tags.scripts[0].encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
        f" script-src 'sha256-{digest}'"
    )


def test_the_same_bytes_again(made: Path, tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    write_pages(results_for(tasks), tasks, "A <title> & more", tmp_path)
    for name in ("report.html", "report.md", "matrix.png", "forest.png", "pareto.png"):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes(), name


def test_the_findings_and_the_matrix_come_first(made: Path) -> None:
    html = (made / "report.html").read_text()
    places = [html.index(mark) for mark in ("mix is the best trade", 'class="card"', "Up and to")]
    assert places == sorted(places)
    assert places[-1] < html.index("<h2>")


def test_markdown(made: Path) -> None:
    text = (made / "report.md").read_text()
    title, _, headline = text.splitlines()[:3]
    assert title == "# A <title> & more"
    assert headline.startswith("**mix is the best trade: +60.0 pp (10.0 % to 70.0 %) on the new")
    row = next(line for line in text.splitlines() if line.startswith("| ft | ✓"))
    assert re.fullmatch(r"\| ft \| ✓ \+65\.0 \[\S+ \S+\] \| ✗ −67\.5 \[\S+ \S+\] \|", row)


def test_without_checkpoints_or_new_tasks_there_is_less(tmp_path: Path) -> None:
    alone = results_of(task_answers("t", "id/id", {"base": "10"}))
    assert draw(alone, tmp_path) == []
    assert "matrix" not in markdown(alone, "t")
    write_pages(alone, [task_answers("t", "id/id", {"base": "10"})], "t", tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "0 checkpoints against base" in html
    assert "<figure" not in html
    assert 'class="card"' not in html
    old = results_of(task_answers("t", "id/id", {"base": "10", "ft": "11"}))
    assert [path.name for path in draw(old, tmp_path)] == ["matrix.png", "forest.png"]


def test_lost_items_are_spread_over_checkpoints(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    found = lost(results_for(tasks), tasks, limit=6)
    assert [(one.checkpoint, one.item.id) for one in found] == [
        ("ft", "old-9"),
        ("ft", "old-10"),
        ("ft", "old-11"),
        ("mix", "old-35"),
    ]
    assert all(one.images[0].startswith("data:image/png;base64,") for one in found)


def test_a_large_picture_is_made_small(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    Image.new("RGB", (800, 400), "red").save(tmp_path / "images/9.png")
    (first, *_) = lost(results_for(tasks), tasks, limit=6)
    assert first.images[0].startswith("data:image/jpeg;base64,")
    thumbnail = tmp_path / "thumbnail.jpg"
    thumbnail.write_bytes(base64.b64decode(first.images[0].partition(",")[2]))
    with Image.open(thumbnail) as image:
        assert image.size == (96, 48)


def chromium(*flags: str, page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=3000",
            *flags,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


DRIVER = """
<script>
const choose = document.querySelector('select[name="checkpoint"]');
choose.value = "mix"; choose.dispatchEvent(new Event("change"));
const table = document.querySelector("table.sortable");
const gain = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === "gain");
gain.querySelector("button").click();
document.body.dataset.first = table.tBodies[0].rows[0].cells[0].textContent;
gain.querySelector("button").click();
document.body.dataset.last = table.tBodies[0].rows[0].cells[0].textContent;
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser(made: Path, tmp_path: Path) -> None:
    page, profile = made / "report.html", tmp_path / "profile"
    shown = chromium("--dump-dom", page=page, profile=profile)
    assert "CONSOLE" not in shown.stderr
    assert "<output>28 shown</output>" in shown.stdout  # 27 of ft and 1 of mix: the script ran
    assert "<title>A &lt;title&gt; &amp; more</title>" in shown.stdout  # and no other did
    picture = tmp_path / "page.png"
    chromium(f"--screenshot={picture}", "--window-size=1280,900", page=page, profile=profile)
    with Image.open(picture) as image:
        assert image.size == (1280, 900)
        small = image.convert("RGB").resize((128, 90))
        assert len(small.getcolors(maxcolors=128 * 90) or []) > 200


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_filters_and_sorting_in_a_browser(made: Path, tmp_path: Path) -> None:
    html = (made / "report.html").read_text()
    driven = tmp_path / "driven.html"
    driven.write_text(re.sub(r"<meta http-equiv[^>]*>", "", html) + DRIVER)
    shown = chromium("--dump-dom", page=driven, profile=tmp_path / "profile")
    assert "<output>1 shown</output>" in shown.stdout
    assert 'data-first="ft"' in shown.stdout
    assert 'data-last="base"' in shown.stdout
