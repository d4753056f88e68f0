"""The page: whole, offline, the same bytes again, and proof against what models say."""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import factories
import pytest
from answers_factory import checkpoint, marks, results_of, task_answers
from browser import CHROMIUM, Browser, browser
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mllmtool.evaluation.findings import find
from mllmtool.evaluation.plots import draw
from mllmtool.evaluation.report import write_page
from mllmtool.evaluation.results import Results, StageFigure, Stages
from mllmtool.evaluation.scoring import TaskAnswers
from mllmtool.evaluation.tables import markdown
from mllmtool.evaluation.transitions import cards, num_changes

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>{{7*7}}"
N = 40
STAGES = Stages(
    checkpoints=("base", "ft-10", "ft-20"),
    tasks=("old", "new"),
    scores=((0.9, 0.1), (0.9, 0.5), (0.225, 0.75)),
    figures=(StageFigure(name="Last", value=0.4875, formula="mean_j A[T][j]"),),
)


def tasks_of(folder: Path) -> list[TaskAnswers]:
    """Two tasks with pictures; everything that a model or an item says is hostile."""
    factories.colour_samples(folder, N)
    new = {"base": marks(4, N), "ft-10": marks(20, N), "ft-20": marks(30, N), "mix": marks(28, N)}
    old = {"base": marks(36, N), "ft-10": marks(36, N), "ft-20": marks(9, N), "mix": marks(35, N)}
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
        checkpoint("ft-10", made_by="finetune", step=10),
        checkpoint("ft-20", made_by="finetune", step=20),
        checkpoint("mix", made_by="fuse wise-ft", interpolates="sha of ft-20", weight=0.5),
    ]
    results = results_of(*tasks, rows=rows)
    return results.model_copy(update={"findings": find(results), "stages": STAGES})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    tasks = tasks_of(folder)
    write_page(results_for(tasks), tasks, "A <title> & more", folder)
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
        value or ""
        for _, attributes in tags.tags
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset", "action", "data"}
    ]
    assert len(sources) > 10
    assert all(value.startswith(("data:image/", "#")) for value in sources)
    assert re.sub(r"url\(#", "", html).count("url(") == 0
    assert "@import" not in html


def test_links_lead_to_sections(made: Path) -> None:
    tags = Tags((made / "report.html").read_text()).tags
    there = {attributes.get("id") for _, attributes in tags}
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert len(links) == 9
    assert all(link and link[1:] in there for link in links)


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
    write_page(results_for(tasks), tasks, "A <title> & more", tmp_path)
    names = ["curves", "forest", "letters", "matrix", "pareto", "stages"]
    assert [path.stem for path in sorted(made.glob("*.png"))] == names
    for path in (*made.glob("*.png"), made / "report.html", made / "report.md"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_findings_and_the_matrix_come_first(made: Path) -> None:
    html = (made / "report.html").read_text()
    places = [html.index(mark) for mark in ("mix is the best trade", 'class="card"', "Up and to")]
    assert places == sorted(places)
    assert places[-1] < html.index("<h2 ")


def test_markdown(made: Path) -> None:
    text = (made / "report.md").read_text()
    title, _, headline = text.splitlines()[:3]
    assert title == "# A <title> & more"
    assert headline.startswith("**mix is the best trade: +60.0 pp (10.0 % to 70.0 %) on the new")
    row = next(line for line in text.splitlines() if line.startswith("| ft-20 | ✓"))
    assert re.fullmatch(r"\| ft-20 \| ✓ \+65\.0 \[\S+ \S+\] \| ✗ −67\.5 \[\S+ \S+\] \|", row)


def test_sections_without_data_are_absent(tmp_path: Path) -> None:
    alone = results_of(task_answers("t", "id/id", {"base": "10"}))
    assert draw(alone, tmp_path) == {}
    assert "matrix" not in markdown(alone, "t")
    write_page(alone, [task_answers("t", "id/id", {"base": "10"})], "t", tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "0 checkpoints against base" in html
    assert "<figure" not in html
    for section in ("matrix", "curves", "stages", "changes"):
        assert f'id="{section}"' not in html
        assert f'href="#{section}"' not in html
    assert "mis-choice" not in html.lower()
    old = results_of(task_answers("t", "id/id", {"base": "10", "ft": "11"}))
    assert list(draw(old, tmp_path)) == ["forest"]
    assert not (tmp_path / "pareto.png").exists()


def test_mischoice_is_shown_where_a_task_asks_for_it(tmp_path: Path) -> None:
    one = task_answers("t", "id/id", {"base": "10", "ft": "00"})
    items = tuple(
        item.model_copy(update={"class_option": 1 - item.answer}) for item in one.task.items
    )
    answers = {
        label: [replace(row, distractor=1 - row.answer) for row in rows]
        for label, rows in one.answers.items()
    }
    one = replace(one, task=replace(one.task, items=items), answers=answers)
    write_page(results_of(one), [one], "t", tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert '<td class="bar" data-v="1.0" style="--w:100.0%">100.0 %</td>' in html
    assert (tmp_path / "mischoice.png").is_file()


def test_changes_are_spread_over_checkpoints_tasks_and_directions(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    results = results_for(tasks)
    assert num_changes(tasks) == 16 + 26 + 24 + 0 + 27 + 1
    found = cards(results, tasks, limit=9)
    changes = [
        (card.task, card.item, one.checkpoint, one.kind) for card in found for one in card.changes
    ]
    assert changes == [
        ("new", "new-4", "ft-10", "gained"),
        ("new", "new-4", "ft-20", "gained"),
        ("new", "new-4", "mix", "gained"),
        ("new", "new-5", "ft-10", "gained"),
        ("new", "new-5", "ft-20", "gained"),
        ("new", "new-5", "mix", "gained"),
        ("old", "old-9", "ft-20", "lost"),
        ("old", "old-10", "ft-20", "lost"),
        ("old", "old-35", "mix", "lost"),
    ]
    assert all(card.images[0].startswith("data:image/png;base64,") for card in found)


@settings(max_examples=30)
@given(st.lists(st.text("01", min_size=6, max_size=6), min_size=2, max_size=5), st.integers(0, 40))
def test_no_more_changes_than_allowed_and_no_fewer_than_there_are(
    rows: list[str], limit: int
) -> None:
    task = task_answers("t", "id/id", {f"c{n}": row for n, row in enumerate(rows)})
    found = cards(results_of(task), [task], limit)
    assert sum(len(card.changes) for card in found) == min(limit, num_changes([task]))
    assert len({card.item for card in found}) == len(found)


def test_a_large_picture_is_made_small(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    Image.new("RGB", (800, 400), "red").save(tmp_path / "images/4.png")
    (first, *_) = cards(results_for(tasks), tasks, limit=6)
    assert first.images[0].startswith("data:image/jpeg;base64,")
    thumbnail = tmp_path / "thumbnail.jpg"
    thumbnail.write_bytes(base64.b64decode(first.images[0].partition(",")[2]))
    with Image.open(thumbnail) as image:
        assert image.size == (128, 64)


def test_endless_answers_are_cut(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path)
    answers = {
        label: [replace(row, response=row.response + "x" * 5000) for row in rows]
        for label, rows in tasks[0].answers.items()
    }
    (first, *_) = cards(results_for(tasks), [replace(tasks[0], answers=answers)], limit=1)
    assert len(first.before) == len(first.changes[0].response) == 1002


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_it_is_drawn_without_a_word_on_the_console(
    made: Path, tmp_path: Path, chromium: Browser, dark: bool
) -> None:
    chromium.said.clear()
    chromium.open(made / "report.html", dark=dark)
    with Image.open(chromium.screenshot(tmp_path / "page.png")) as image:
        assert image.size == (1280, 900)
        small = image.convert("RGB").resize((128, 90))
    assert len(small.getcolors(maxcolors=128 * 90) or []) > 200
    paper = small.getpixel((1, 80))
    assert paper == ((0x16, 0x1B, 0x21) if dark else (255, 255, 255))
    assert chromium.said == []


@needs_chromium
def test_what_models_say_does_not_run(made: Path, chromium: Browser) -> None:
    chromium.open(made / "report.html")
    assert chromium.value("document.title") == "A <title> & more"
    assert chromium.value("document.scripts.length") == 1
    assert chromium.value("document.querySelectorAll('[onerror]').length") == 0
    assert HOSTILE in chromium.value("document.querySelector('.said dd').textContent")
    added = "document.body.appendChild(Object.assign(document.createElement('script'),"
    chromium.value(f"{added} {{textContent: 'document.title=1'}}))")
    assert chromium.value("document.title") == "A <title> & more"  # the policy holds


def choose(name: str, value: str) -> str:
    return (
        f"(() => {{ const one = document.querySelector('[data-of=change-cards] [name={name}]');"
        f" one.value = '{value}'; one.dispatchEvent(new Event('input', {{bubbles: true}}));"
        " return document.querySelector('[data-of=change-cards] output').textContent; })()"
    )


@needs_chromium
def test_filters_show_what_was_chosen(made: Path, chromium: Browser) -> None:
    chromium.open(made / "report.html")
    assert chromium.value(choose("kind", "lost")) == "28 shown"
    assert chromium.value(choose("checkpoint", "mix")) == "1 shown"
    visible = "[...document.querySelectorAll('#change-cards > article')].filter(one => !one.hidden)"
    assert chromium.value(f"{visible}.length") == 1
    assert chromium.value(f"{visible}[0].querySelectorAll('[data-kind]:not([hidden])').length") == 1
    assert chromium.value(choose("kind", "")) == "25 shown"
    assert chromium.value(choose("task", "old")) == "1 shown"
    assert chromium.value(choose("text", "no such text")) == "0 shown"
    assert chromium.value(choose("text", "ALERT(1)")) == "1 shown"


@needs_chromium
def test_the_keyboard_sorts_and_filters(made: Path, chromium: Browser) -> None:
    chromium.open(made / "report.html")
    focused = "document.activeElement.textContent.trim()"
    for _ in range(60):
        chromium.press("Tab")
        if chromium.value(focused) == "gain":
            break
    assert chromium.value("document.activeElement.matches(':focus-visible')") is True
    first = "document.querySelector('#balance tbody tr').cells[0].textContent"
    chromium.press("Enter")
    assert chromium.value(first) == "ft-20"
    chromium.press(" ")
    assert chromium.value(first) == "base"
    assert chromium.value("document.activeElement.closest('th').ariaSort") == "ascending"
    chromium.value("document.querySelector('[data-of=cell-rows] [name=verdict]').focus()")
    chromium.press("f")  # jumps to forgot, as in every list
    shown = "document.querySelector('[data-of=cell-rows] output').textContent"
    assert chromium.value(shown) == "1 shown"


@needs_chromium
def test_it_prints_whole(made: Path, chromium: Browser) -> None:
    chromium.open(made / "report.html", dark=True)
    assert chromium.printed().startswith(b"%PDF-")
    chromium.call("Emulation.setEmulatedMedia", media="print")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    assert chromium.value(style.format(".filters", "display")) == "none"
    assert chromium.value(style.format(".tall", "maxHeight")) == "none"
    assert chromium.value(style.format("body", "backgroundColor")) == "rgb(255, 255, 255)"
    chromium.call("Emulation.setEmulatedMedia", media="")
