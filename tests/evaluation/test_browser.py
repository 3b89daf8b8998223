"""The pages as a reader meets them: in a real browser, light and dark, on a phone, on paper, without a mouse, by axe-core."""

import wave

import numpy as np
import polars as pl
import pytest
from markupsafe import Markup

from pipeline.evaluation import plots, report
from pipeline.evaluation.intervals import Interval
from pipeline.storage.atomic import write_text
from pipeline.study.page import render_page
from tests.browser import Browser, find_axe
from tests.fabricated_report import CLASSES, make_params, make_run

HOSTILE = '</script><script>document.title = "taken"</script><img src=x onerror="document.title = 1">'
PAGES = ("index", "clips", "study")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A run whose clips are sounds of a corpus beside the project, one of them with a hostile transcript."""
    folder = tmp_path_factory.mktemp("pages") / "my project"
    make_run(folder)
    films = folder.parent / "my films #1"
    films.mkdir()
    with wave.open(str(films / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.zeros(16000, "<i2").tobytes())
    path = folder / "data" / "manifest.parquet"
    test = pl.read_parquet(folder / "reports" / "predictions.parquet")["id"].unique().sort()
    pl.read_parquet(path).with_columns(
        audio=pl.lit("sound.wav"),
        video=pl.when(pl.col("id") == test[1]).then(None).otherwise("video"),
        start=pl.lit(0.5),
        end=pl.lit(1.5),
        text=pl.when(pl.col("id") == test[0]).then(pl.lit(HOSTILE)).otherwise("text"),
    ).write_parquet(path)
    params = make_params(corpus={"name": "demo", "root": str(films)})
    report.write_report(params, folder / "data", folder / "reports", folder / "features")
    write_text(folder / "reports" / "study.html", render_page({"fusion": make_study(), "loss": make_study()}))
    return folder / "reports"


def make_study():
    """One question, as `study.json` keeps it; asked of two studies, so that all headings occur twice."""
    figures = {"gated": Interval(0.7, 0.6, 0.8), "concat": Interval(0.6, 0.5, 0.72)}
    cells = ["setting", "UAR", "difference", "p", "validation", "says"]
    question = {
        **{"question": "Which fusion?", "metric": "UAR", "sentences": ["No difference is shown."], "headings": cells},
        **{"rows": [["gated", "0.700", "–", "–", "0.71", ""], ["concat", "0.600", "−0.100", "0.03", "0.61", "worse"]]},
        "drawings": [{"title": "UAR, held out", "svg": str(plots.draw_intervals(figures, "UAR", main=["gated"]))}],
    }
    study = {"commit": "0123456789ab", "recipe": "demo", "params": {}, "unit": "speaker", "groups": 12, "runs": 6}
    return {**study, "questions": [question]}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_axe_finds_nothing(browser, pages, name, scheme, width):
    axe = find_axe()
    if axe is None:
        pytest.skip("no axe-core here (pip install axe-core-python, or AXE_CORE=axe.min.js)")
    browser.resize(width)
    browser.look(scheme)
    browser.open(pages / f"{name}.html")
    browser.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    # The shadow that shows what scrolls lies behind nothing that is read; with it contrast could not be computed.
    plain = "Object.assign(document.createElement('style'), {textContent: '.scroll{background:none!important}'})"
    browser.ask(f"document.head.append({plain})")
    browser.ask(axe.read_text(encoding="utf-8") + "; 0")
    told = "(r) => r.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 90)))"
    found = browser.ask(f"axe.run({{resultTypes: ['violations']}}).then({told})")
    assert found == [] and browser.errors == []


#: Contrast of what is drawn with the ground of its card, by WCAG's formula: [class, contrast] of the least.
CONTRAST = """(() => {
  const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + [0.2126, 0.7152, 0.0722][k] * v, 0);
  const least = (chosen, key) => [...document.querySelectorAll(chosen)].map((one) => {
    const [a, b] = [getComputedStyle(one)[key], getComputedStyle(one.closest('.card')).backgroundColor].map(light);
    return [one.getAttribute('class'), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  }).sort((a, b) => a[1] - b[1])[0];
  const lines = 'svg .whisker, svg .axis, svg .ideal, svg .curve:not(.faint)';
  return [least('figure svg text', 'fill'), least('.card .range', 'color'), least(`figure :is(${lines})`, 'stroke')];
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_drawings_can_be_told_from_their_ground(browser, pages, scheme):
    browser.resize(1200)
    browser.look(scheme)
    browser.open(pages / "index.html")
    letters, ranges, lines = browser.ask(CONTRAST)
    assert letters[1] >= 4.5 and ranges[1] >= 4.5 and lines[1] >= 3, (letters, ranges, lines)


#: Sizes of letters as they stand on the screen, smallest first: [size, text].
SIZES = """(() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node; (node = walker.nextNode()); ) {
    const place = node.parentElement, drawing = place.closest('svg[viewBox]');
    if (!node.data.trim() || place.closest('script, style, title') || !place.checkVisibility()) continue;
    const scale = drawing ? drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width : 1;
    found.push([parseFloat(getComputedStyle(place).fontSize) * scale, node.data.trim()]);
  }
  return found.sort((a, b) => a[0] - b[0])[0];
})()"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 390, 620, 880, 1200])
def test_everything_can_be_read_at_any_width(browser, pages, name, width):
    browser.resize(width)
    browser.look()
    browser.open(pages / f"{name}.html")
    size, text = browser.ask(SIZES)
    assert size >= 11, text
    assert browser.ask("document.documentElement.scrollWidth") <= width, "the page itself does not scroll to the side"


def test_what_scrolls_shows_it_and_takes_keys(browser, pages):
    browser.resize(390)
    browser.look()
    browser.open(pages / "index.html")
    auto = "getComputedStyle(one).overflowX === 'auto'"
    wide = f"[...document.querySelectorAll('*')].filter((one) => one.scrollWidth > one.clientWidth + 1 && {auto})"
    assert browser.ask(f"{wide}.length") > 3
    assert browser.ask(f"{wide}.every((one) => one.tabIndex === 0)")
    shadow = "!one.matches('.scroll') || getComputedStyle(one).backgroundImage.includes('gradient')"
    assert browser.ask(f"{wide}.every((one) => {shadow})")


@pytest.mark.parametrize("name", PAGES)
def test_on_paper(browser, pages, name):
    browser.resize(718)  # A4 less its margins
    browser.look("dark", "print")
    browser.open(pages / f"{name}.html")
    style = "((chosen, key) => [...new Set([...document.querySelectorAll(chosen)].map((one) => getComputedStyle(one)[key]))])"
    assert browser.ask(f"{style}('body', 'backgroundColor')") == ["rgb(255, 255, 255)"], "a dark screen is no dark paper"
    assert browser.ask(f"{style}('main *', 'printColorAdjust')") == ["exact"]
    assert browser.ask(f"{style}('h2, h3, caption, thead', 'breakAfter')") == ["avoid"]
    assert browser.ask(f"{style}('figure, tr, table', 'breakInside')") == ["avoid"]
    assert browser.ask("[...document.querySelectorAll('details > :not(summary)')].every((one) => one.checkVisibility())")
    hides = "one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== 'visible'"
    cut = f"[...document.querySelectorAll('.scroll, pre')].filter((one) => {hides}).length"
    assert browser.ask(cut) == 0
    assert browser.ask("document.documentElement.scrollWidth") <= 718, "tables are whole"
    browser.look()


@pytest.fixture
def clips(browser, pages):
    browser.resize(1200)
    browser.look()
    browser.open(pages / "clips.html")
    return browser


def shown(browser):
    return browser.ask("[...document.querySelectorAll('article h2')].map((one) => one.firstChild.data)")


def choose(browser, **fields):
    for name, value in fields.items():
        browser.ask(f"(() => {{ const one = document.getElementById('by-{name}'); one.value = {value!r}; "
                    "one.dispatchEvent(new Event('input', {bubbles: true})); })()")  # fmt: skip


def judge(pages):
    """(clip, variant) → decision of the mean over seeds, and truth and speaker of each clip, by other means than the page's."""
    table = pl.read_parquet(pages / "predictions.parquet")
    means = table.group_by("variant", "id").agg(pl.col(f"p_{name}").mean() for name in CLASSES)
    said = {(r["id"], r["variant"]): max(CLASSES, key=lambda name: r[f"p_{name}"]) for r in means.to_dicts()}
    return said, {row["id"]: row for row in table.unique("id").to_dicts()}


def test_clips_are_filtered(clips, pages):
    said, facts = judge(pages)

    def expect(keep):
        return f"{sum(keep(clip) for clip in facts)} of 48 clips"

    count = "document.getElementById('count').textContent"
    assert clips.ask(count).startswith("48 of 48 clips; 1 to 20 shown") and len(shown(clips)) == 20
    choose(clips, truth="2")
    assert clips.ask(count).startswith(expect(lambda clip: facts[clip]["truth"] == "fear"))
    choose(clips, truth="", guess="0")
    assert clips.ask(count).startswith(expect(lambda clip: said[clip, "fused"] == "anger"))
    choose(clips, guess="", speaker="spk05")
    assert clips.ask(count).startswith(expect(lambda clip: facts[clip]["speaker"] == "spk05"))
    choose(clips, speaker="", model="1", verdict="wrong")
    assert clips.ask(count).startswith(expect(lambda clip: said[clip, "audio"] != facts[clip]["truth"]))
    choose(clips, other="0right")
    both = expect(lambda clip: said[clip, "audio"] != facts[clip]["truth"] == said[clip, "fused"])
    assert clips.ask(count).startswith(both) and not both.startswith("0 ")
    address = clips.ask("location.hash")
    clips.open(pages / "clips.html", address)
    assert clips.ask(count).startswith(both), "the address keeps what is shown"
    clips.ask("document.querySelector('[type=reset]').click()")
    clips.ask("new Promise((done) => setTimeout(done, 20))")
    assert clips.ask(count).startswith("48 of 48")
    choose(clips, words="dia03")
    assert clips.ask(count).startswith(f"{sum('dia03' in clip for clip in facts)} of 48")
    choose(clips, words="no such words")
    assert clips.ask(count) == "No clip is like that." and clips.errors == []


def test_clips_are_turned_over_by_keyboard(clips):
    first = shown(clips)
    clips.ask("document.getElementById('by-verdict').focus()")
    clips.press("ArrowDown")  # to the next choice: wrong
    assert clips.ask("document.getElementById('by-verdict').value") == "wrong"
    clips.ask("document.getElementById('by-verdict').value = ''; form.dispatchEvent(new Event('input'))")
    for _ in range(60):
        clips.press("Tab")
        if clips.ask("document.activeElement.textContent") == "Next":
            break
    clips.press("Enter")
    second = shown(clips)
    assert len(second) == 20 and not set(first) & set(second)
    assert clips.ask("document.activeElement.id") == "list", "reading goes on at the first of them"
    clips.ask("[...document.querySelectorAll('nav button')].find((one) => one.textContent === 'Last').click()")
    assert len(shown(clips)) == 8


def test_a_clip_is_read_only_when_it_is_played(clips, pages):
    """Its sound lies in a corpus outside the project, and is a part of a longer one."""
    _, facts = judge(pages)
    clip = sorted(facts)[1]
    clips.open(pages / "clips.html", f"#clip={clip}")
    assert shown(clips) == [clip]
    player = "document.querySelector('audio')"
    assert clips.ask(f"{player}.preload") == "none" and not [one for one in clips.requests if "my%20films" in one]
    clips.ask(f"{player}.focus(); window.begun = new Promise((done) => {player}.addEventListener('timeupdate', done)); 0")
    clips.press(" ")
    clips.ask("window.begun.then(() => 0)")
    assert clips.ask(f"{player}.duration") == pytest.approx(2) and clips.ask(f"{player}.currentTime") >= 0.5
    assert all(one.startswith(("file:", "data:")) for one in clips.requests) and clips.errors == []


def test_a_film_that_cannot_be_played_is_said(clips, pages):
    clips.ask("document.querySelector('button.still').focus()")
    clips.press("Enter")
    told = "document.querySelector('.media p a')"
    clips.ask(f"new Promise((done) => setInterval(() => {told} && done(), 20))")
    assert "cannot play it, or the file is not there" in clips.ask(f"{told}.parentNode.textContent")
    assert clips.ask("document.querySelector('.media a').href").endswith(".mp4#t=0.5,1.5")


def test_what_was_said_is_never_markup(clips, pages):
    _, facts = judge(pages)
    clips.open(pages / "clips.html", f"#clip={sorted(facts)[0]}")
    assert clips.ask("document.querySelector('.said').textContent") == f"“{HOSTILE}”"
    assert clips.ask("document.title") == "Held-out clips: demo" and clips.ask("document.images.length") == 0


def test_a_trace_is_drawn_through_its_values(clips, pages):
    table = pl.read_parquet(pages / "traces.parquet")
    clip = table["id"][0]
    clips.open(pages / "clips.html", f"#clip={clip}")
    path = clips.ask("document.querySelector('svg .curve.truth').getAttribute('d')")
    heights = [float(part.split(" ")[1]) for part in path.replace("L", "M").split("M")[1:]]
    expected = table.filter(pl.col("id") == clip).sort("time")["truth_valence"]
    assert heights == pytest.approx([8 + (1 - value) / 2 * 86 for value in expected], abs=0.3)
    assert clips.ask("document.querySelectorAll('svg .curve').length") == 4


def test_the_report_leads_to_the_clip(browser, pages):
    browser.open(pages / "index.html")
    link = browser.ask("document.querySelector('#classes a').getAttribute('href')")
    name = browser.ask("document.querySelector('#classes a').textContent")
    browser.open(pages / "clips.html", link.removeprefix("clips.html"))
    assert shown(browser) == [name] and Markup(link).startswith("clips.html#clip=")
