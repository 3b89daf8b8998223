"""What `dvc plots` draws: the tables, and the page that needs no network."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
from dvc_render import VegaRenderer, render_html
from ruamel.yaml import YAML

from pipeline.evaluation.plot_files import write_plot_files
from tests.browser import Browser

ROOT = Path(__file__).resolve().parents[2]
HISTORY = """variant,fold,seed,epoch,phase,train_loss,val_loss
audio,0,0,1,fit,9,9
fused,0,0,1,fit,4,5
fused,0,0,2,fit,3,4
fused,0,0,3,fit,1,1
fused,0,1,1,fit,2,
fused,0,1,2,fit,1,2
"""
VARIANTS = """variant,metric,mean,low,high
audio,uar,0.4,0.3,0.5
fused,uar,0.6,0.5,0.7
fused,accuracy,0.9,0.8,0.95
linear,uar,0.5,0.45,0.6
chance,uar,0.25,,
"""


@pytest.fixture
def plots(tmp_path):
    (tmp_path / "history.csv").write_text(HISTORY)
    (tmp_path / "variants.csv").write_text(VARIANTS)
    write_plot_files(tmp_path, "uar")
    return tmp_path


def test_learning_is_the_mean_of_the_fused_runs_while_all_of_them_learned(plots):
    rows = pl.read_csv(plots / "learning.csv").rows()
    assert rows == [(1, "training", 3.0), (2, "training", 2.0), (1, "validation", 5.0), (2, "validation", 3.0)]


def test_variants_of_one_figure_the_baselines_last(plots):
    table = pl.read_csv(plots / "leading.csv")
    assert table["variant"].to_list() == ["fused", "linear", "audio", "chance"] and set(table["metric"]) == {"uar"}
    assert table.rows()[0] == ("fused", "uar", 0.6, 0.5, 0.7)


def test_without_tables_there_are_headings(tmp_path):
    write_plot_files(tmp_path, "uar")
    assert (tmp_path / "learning.csv").read_text() == "epoch,role,loss\n"
    assert (tmp_path / "leading.csv").read_text() == "variant,metric,mean,low,high\n"


def declared():
    """File → how `dvc.yaml` has it drawn."""
    stage = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["evaluate"]
    return {path: how for one in stage["plots"] for path, how in one.items()}


def test_the_page_is_ours_and_every_plot_has_a_template_of_its_own():
    assert "html_template = plots/page.html" in (ROOT / ".dvc/config").read_text()
    page = (ROOT / ".dvc/plots/page.html").read_text()
    assert "{scripts}" not in page and not re.search(r'(?:src|href)="(?!data:)', page)
    for how in declared().values():
        spec = json.loads((ROOT / f".dvc/plots/{how['template']}.json").read_text())
        assert spec["$schema"].endswith("vega-lite/v5.json") and spec["usermeta"]["draw"] == how["template"]


def test_the_page_draws_without_a_network(plots, tmp_path):
    rows = {
        "learning": pl.read_csv(plots / "learning.csv").to_dicts(),
        "leading": pl.read_csv(plots / "leading.csv").to_dicts(),
        "confusion": [{"actual": a, "predicted": p} for a, p in [("joy", "joy")] * 3 + [("joy", "fear"), ("fear", "fear")]],
    }
    made = []
    for path, how in declared().items():
        if (name := Path(path).stem) in rows:
            points = [{key: str(v) for key, v in row.items()} | {"rev": rev} for rev in ("main", "work") for row in rows[name]]
            made.append(VegaRenderer(points, path, **how, template_dir=str(ROOT / ".dvc/plots")))
    render_html(made, tmp_path / "plots.html", ROOT / ".dvc/plots/page.html")
    browser = Browser(tmp_path / "browser")
    browser.open(tmp_path / "plots.html")
    assert browser.errors == [] and all(one.startswith(("file:", "data:")) for one in browser.requests)
    assert browser.ask("[...document.querySelectorAll('h2')].map((one) => one.textContent)") == [
        how.properties["title"] for how in made
    ]
    cells = "(one) => [...one.rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
    tables = browser.ask(f"[...document.querySelectorAll('table')].map({cells})")
    assert tables == [[["", "fear", "joy"], ["fear", "1", "0"], ["joy", "1", "3"]]] * 2, "with numbers, for each revision"
    assert browser.ask("[...document.querySelectorAll('svg')].map((one) => one.querySelectorAll('path').length)") == [4, 6]
    assert browser.ask("document.querySelectorAll('svg rect').length") == 8
    browser.close()
