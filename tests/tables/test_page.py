"""The page: one self-contained file, the grid's numbers, dashes for missing values, every text escaped."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from made import BETTER, COLA, MSE, NOT_COMPARABLE, OPEN, WORSE, grid, place, record, score

from rosa_bench.tables.figures.figures import Plot
from rosa_bench.tables.formats import comma_separated, markdown
from rosa_bench.tables.grid import Against, Column, Grid, Place, Printed, Row, Verdict
from rosa_bench.tables.html.details import common, dumped
from rosa_bench.tables.html.page import Claim, page
from rosa_bench.tables.latex import escaped, latex

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
VOID = {"meta", "input", "img", "br", "wbr"}


class Reader(HTMLParser):
    """The page as a browser without scripts shows it: table cells as text, every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.stack, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1] += data
        elif {"td", "th"} & set(self.stack):
            self.rows[-1][-1] += data

    def row(self, label):
        """The cells of the first row with this label."""
        return next(row for row in self.rows if row and row[0] == label)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def panels(self):
        return json.loads(self.scripts[0])


def read(*rows, columns=(COLA,), **more):
    return Reader(page([grid(*rows, columns=columns, **more)]))


def test_a_cell_shows_mean_spread_count_and_interval_of_both_epochs():
    rows = read(("lora", place(50.0, 52.0, 57.0))).rows
    assert rows[0] == ["method", "memoryMB", "times", "colamatthewsvalidation"]
    assert rows[1][:3] == ["lora", "10", "12"]
    last, best = "53.00 ± 3.6195 % interval 45.79 to 60.21", "54.00 ± 3.6195 % interval 46.79 to 61.21"
    assert rows[1][3] == last + best


def test_only_another_number_of_seeds_is_repeated():
    rows = read(("a", place(50.0, 52.0)), ("b", place(51.0, 52.0)), ("c", place(50.0))).rows
    assert ["(n=" in row[-1] for row in rows[1:4]] == [False, False, True]


def test_the_median_is_shown_where_a_table_summarizes_by_it():
    reader = read(("lora", place(50.0, 52.0, 57.0)), aggregate="median")
    assert reader.rows[1][-1].startswith("52.00 ±")


def test_a_missing_value_is_a_dash_without_a_sort_value():
    other = Column("rte", "accuracy", "validation")
    rows = ("one seed", place(50.0)), ("other", Place(), place(9.0)), ("last only", Place({"last": score(50.0)}))
    reader = read(*rows, columns=(COLA, other))
    assert [row[3:] for row in reader.rows[1:4]] == [["50.0051.00", "–"], ["––", "9.0010.00"], ["50.00–", "–"]]
    cells = [set(cell) for cell in reader.all("td")]
    assert cells[2] == {"data-last", "data-best"} and cells[3] == {"class"} and cells[10] == {"data-last"}


def test_an_empty_place_stays_empty():
    assert read(("printed", Place(printed=Printed(60.0, None, 1)))).rows[1] == ["printed", "––paper 60.0"]


def test_the_value_to_sort_by_is_exact():
    third = read(("lora", place(1 / 3, best=[2 / 3]))).all("td")[2]
    assert float(third["data-last"]) == 1 / 3 and float(third["data-best"]) == 2 / 3


def test_a_paper_is_shown_next_to_ours_with_its_mark_and_reason():
    text = page([grid(("a", place(50.0, **NOT_COMPARABLE)), ("b", place(63.0, **NOT_COMPARABLE)))])
    cell = Reader(text).rows[1][-1]
    assert cell.startswith("50.051.0") and cell.endswith("paper 63.4 ± 1.2−13.4 not comparable [a,b]")
    assert text.count(">[a] other model size</li>") == text.count(">[b] other data</li>") == 1  # one line for both rows
    lines = Reader(text).panels["places"][0]["lines"]
    assert "Paper: 63.4 ± 1.2 (median of five)." in lines
    assert "Ours minus the paper’s, last epoch: −13.4, not comparable: other model size; other data." in lines


@pytest.mark.parametrize("mark", ["matched", "off"])
def test_marks_are_words(mark):
    more = {"printed": Printed(63.0, None, 1), "verdict": Verdict(0.1, mark)}
    assert read(("a", place(63.1, **more))).rows[1][-1].endswith(f"paper 63.0+0.1 {mark}")


@pytest.mark.parametrize(
    ("against", "shown"), [(BETTER, "<strong>50.00</strong><"), (WORSE, "50.00 †<"), (OPEN, "50.00<")]
)
def test_bold_and_dagger_only_for_significant_differences_at_the_tested_epoch(against, shown):
    text = page([grid(("rosa", place(50.0, **against)), baseline="lora")])
    assert f'<span class="at-last">{shown}' in text and '<span class="at-best">51.00<' in text
    words = "does not hold" if against is OPEN else "holds"
    (line,) = (line for line in Reader(text).panels["places"][0]["lines"] if line.startswith("Against"))
    assert f"paired bootstrap, p = {against['against'].p}" in line and line.endswith(f"the difference {words}.")


def test_a_test_without_a_p_value_shows_none():
    more = {"against": Against("lora", 1.0, None, better=True, holds=False, test="McNemar")}
    lines = read(("rosa", place(50.0, **more))).panels["places"][0]["lines"]
    assert "Against lora: +1.00, McNemar; the difference does not hold." in lines


def test_columns_sort_the_better_value_first():
    heads = read(("a", Place({"last": score(1.0)})), columns=(COLA, MSE)).all("th")[:3]
    assert [head["data-first"] for head in heads] == ["ascending", "descending", "ascending"]
    assert {head["aria-sort"] for head in heads} == {"none"} and {head["scope"] for head in heads} == {"col"}


def test_a_column_is_called_by_its_split_where_others_share_task_and_metric():
    seen, unseen = (Column("webnlg", "bleu", f"test_{part}") for part in ("seen", "unseen"))
    made = grid(("a", place(1.0), place(2.0), place(3.0)), columns=(seen, unseen, COLA))
    heads = ["method", "trainable", "webnlg bleu (test_seen)", "webnlg bleu (test_unseen)", "cola matthews"]
    assert next(csv.reader(comma_separated(made).splitlines())) == heads
    assert f"| {' | '.join(heads[2:])} |" in markdown(made) and " & ".join(map(escaped, heads[2:])) in latex(made)
    reader = Reader(page([made]))
    names = [attributes["data-name"] for attributes in reader.all("th")[:6]]
    assert names == ["method", "memory, MB", "time, s", *heads[2:]]
    assert reader.rows[0][3:] == ["webnlgbleutest_seen", "webnlgbleutest_unseen", "colamatthewsvalidation"]


def test_the_panel_holds_the_runs_and_their_configuration_once():
    first, second = record(seed=1, last=50.0), record(seed=2, last=52.0)
    second.config["train"]["device"] = "cuda"
    second.env = {"device": "A100"}
    panels = read(("lora", Place({"last": score(50.0, 52.0)}, records=(first, second)))).panels
    (shown,) = panels["places"]
    assert shown["runs"] == [[1, first.run_id, first.key, 50.0, None], [2, second.run_id, second.key, 52.0, None]]
    assert shown["differs"] == {"train.device": ["cpu", "cuda"]}
    part = panels["parts"]
    assert {name: part[number] for name, number in shown["config"].items()} == {
        "": {"output_dir": "results/runs"},
        "model": first.config["model"],
        "method": first.config["method"],
        "task": {"name": "cola"},
        "data": {"source": "embedded"},
        "train": {"lr": 0.1},
    }
    assert [(part[number], seeds) for number, seeds in shown["env"]] == [(first.env, [1]), (second.env, [2])]
    assert [(part[number], seeds) for number, seeds in shown["data"]] == [(first.data, [1, 2])]


def test_common_and_partial_settings():
    shared, differing = common([{"seed": 1, "a": {"b": 1, "c": 2}}, {"seed": 2, "a": {"b": 1, "d": 3}}])
    assert shared == {"a": {"b": 1}} and differing == {"a.c": [2, "(absent)"], "a.d": ["(absent)", 3]}


def test_a_number_that_is_not_finite_is_still_json():
    assert json.loads(dumped({"lr": [float("nan"), 1.5]})) == {"lr": ["nan", 1.5]}


def test_differing_settings_are_reported():
    lines = read(("lora", place(50.0, other_settings=3))).panels["places"][0]["lines"]
    assert lines[-1] == "Runs with other settings, not included: 3."


def test_runs_without_a_result_are_reported():
    oom, failed = (tuple(record(seed=seed, status=status) for seed in (3, 4)) for status in ("oom", "failed"))
    reader = read(("lora", place(50.0, ended=oom)), ("rosa", Place(ended=failed[:1])))
    assert [row[-1] for row in reader.rows[1:3]] == ["50.0051.00oom (n=2)", "––failed (n=1)"]
    assert reader.panels["places"][0]["lines"][-1] == "Runs that ended with status oom: 2."


def test_the_panel_of_a_place_without_a_result_holds_the_runs_and_why():
    ended = record(seed=3, status="oom", error="no room", scores={}, primary={})
    panels = read(("lora", Place(ended=(ended,)))).panels
    (shown,) = panels["places"]
    assert shown["runs"] == [[3, ended.run_id, ended.key, None, None, "oom: no room"]]
    assert panels["parts"][shown["config"]["train"]] == {"lr": 0.1, "device": "cpu"}


def test_sources_of_numbers_are_shown_without_scripts():
    rows = read(("lora", place(50.0, 51.0))).rows
    assert ["cola", "embedded v1", "2", "train aa11validation bb22"] in rows
    assert ["2", "device cpu (made), python 3.11", "torch 2.6"] in rows


def test_a_run_in_two_tables_counts_once():
    grids = [grid(("lora", place(50.0, 51.0))), grid(("lora", place(50.0, 51.0)))]
    assert "2 tables from 2 runs." in page(grids)


def evil_page(tmp_path):
    bad = record(last=50.0, run_id=EVIL, key=EVIL, status="failed", error=EVIL, settings={EVIL: EVIL})
    bad.data, bad.env = {"source": EVIL, "sha256": {EVIL: EVIL}}, {"device": EVIL, "packages": {EVIL: EVIL}}
    bad.task = EVIL
    more = {"printed": Printed(1.0, None, 1, EVIL), "verdict": Verdict(1.0, "not comparable", (EVIL,))}
    against = Against(EVIL, 1.0, 0.5, better=True, holds=True, test=EVIL)
    column = type(COLA)(EVIL, EVIL, EVIL)
    cell = Place({"last": score(50.0)}, records=(bad,), against=against, **more)
    made = grid((EVIL, cell), columns=(column,), title=EVIL, baseline=EVIL, notes=[EVIL])
    (tmp_path / "p.png").write_bytes(b"\x89PNG")
    return page([made], [Plot(tmp_path / "p.png", EVIL, EVIL)], [EVIL])


def test_no_text_becomes_markup(tmp_path):
    text = evil_page(tmp_path)
    reader = Reader(text)
    assert len(reader.scripts) == 2 and [image.get("onerror") for image in reader.all("img")] == [None]
    assert "<script>alert" not in text and text.count("</script") == 2
    run = reader.panels["places"][0]["runs"][0]
    assert run == [1, EVIL, EVIL, 50.0, None, f"failed: {EVIL}"]  # whole for those who read it
    assert any(row[0] == EVIL for row in reader.rows) and reader.all("img")[0]["alt"] == EVIL


def test_a_placeholder_in_data_is_not_filled_in():
    assert read(("{{script}}", place(50.0))).rows[1][0] == "{{script}}"


def test_half_a_surrogate_pair_does_not_break_the_page():
    page([grid(("\ud800", place(50.0)))]).encode()


def compared(row, column, epoch="last"):
    """The shades of a row's cells, in a table with a baseline of 50 in every column."""
    made = grid(
        ("lora", place(50.0), place(50.0)), row, ("far", place(10.0), place(10.0)), columns=column, baseline="lora"
    )
    cells = Reader(page([made])).all("td")
    return [cell.get("class") for cell in cells if epoch in str(cell.get("class"))][: len(column)]


def test_cells_are_shaded_by_their_difference_from_the_baseline():
    columns = (COLA, MSE)
    assert compared(("a", place(60.0), place(60.0)), columns) == [
        "last-better-1 best-better-1", "last-worse-1 best-worse-1"
    ]  # fmt: skip
    near, far = place(60.0, **BETTER), place(80.0, **BETTER)
    assert compared(("a", near, place(50.0)), columns)[0] == "last-better-2 best-better-1"
    assert compared(("a", far, place(50.0)), columns)[0] == "last-better-3 best-better-1"
    assert compared(("a", place(20.0, **WORSE), place(50.0)), columns)[0] == "last-worse-3 best-worse-1"


def test_without_a_baseline_nothing_is_shaded():
    text = page([grid(("lora", place(50.0)), ("rosa", place(60.0)))])
    assert not any("better" in str(attributes.get("class")) for _, attributes in Reader(text).elements)
    assert "not tested" in str(read(("lora", place(50.0)), ("rosa", place(60.0)), baseline="lora").panels)


def test_groups_and_kinds_have_headings():
    rows = [
        Row("lora", group="paper", places={COLA: place(1.0)}),
        Row("full", group="baseline", places={COLA: place(2.0)}),
    ]
    text = page([Grid("t", "t", [COLA], rows, "last")])
    scopes = [head.get("scope") for head in Reader(text).all("th")]
    assert scopes.count("rowgroup") == 2 and "Methods of the papers" in text and "<h3>Gen" not in text
    other = Column("e2e", "bleu", "test", kind="Generation")
    made = grid(("lora", place(1.0), place(2.0)), ("rosa", place(1.0)), columns=(COLA, other))
    tables = page([made]).split("<h3>Generation</h3>")
    assert len(tables) == 2 and "rosa" not in tables[1].split("</table>")[0]


CLAIMS = [
    Claim(
        1, "A beats B.", "+1 (table 2)", "−2 (−3 to −1)", "does not hold", "does not hold", ["score: −2"], [record()]
    ),
    Claim(2, EVIL, EVIL, EVIL, f"undecided: {EVIL}", "undecided", [EVIL], []),
]


def test_the_page_opens_with_the_claims_and_each_leads_to_its_runs():
    text = page([grid(("lora", place(50.0)))], claims={"Real tasks": CLAIMS})
    reader = Reader(text)
    assert text.index('id="claims"') < text.index('id="table-0"') and '<a href="#claims">' in text
    assert reader.rows[1] == ["1. A beats B.", "+1 (table 2)", "−2 (−3 to −1)", "does not hold"]
    shown = reader.panels["places"][0]
    assert shown["lines"] == ["A beats B.", "score: −2"]
    assert shown["runs"] == [[1, record().run_id, record().key, 50.0, 51.0]]
    assert "<li>A note.</li>" in page([], claims={"Real tasks": CLAIMS}, claim_notes=["A note."])
    assert len(reader.scripts) == 2 and "Claims" not in page([grid(("lora", place(50.0)))])


def test_nothing_can_be_loaded_and_no_foreign_script_can_run(tmp_path):
    text = evil_page(tmp_path)
    reader = Reader(text)
    policy = next(m["content"] for m in reader.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:" and "unsafe" not in policy
    own = base64.b64encode(hashlib.sha256(reader.scripts[1].encode()).digest()).decode()
    style = base64.b64encode(
        hashlib.sha256(re.search("<style>(.*?)</style>", text, re.S)[1].encode()).digest()
    ).decode()
    assert rules["script-src"] == f"'sha256-{own}'" and rules["style-src"] == f"'sha256-{style}'"
    targets = [a[name] for _, a in reader.elements for name in ("src", "href", "action", "data") if a.get(name)]
    assert targets and all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    assert "http" not in text.replace("http-equiv", "") and "@import" not in text and "url(" not in text
    assert not [a for _, a in reader.elements if any(n.startswith("on") or n == "style" for n in a)]


def test_links_lead_somewhere_and_ids_are_unique(tmp_path):
    reader = Reader(page([grid(("a", place(1.0, **NOT_COMPARABLE))), grid(("b",))]))
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids)) and {a["href"][1:] for a in reader.all("a")} <= set(ids)


@pytest.mark.parametrize(("value", "shown"), [(88.125, "88.12"), (8.6, "8.600"), (0.45, "0.450"), (1.5e-5, "1.50e−05")])
def test_numbers_have_as_many_decimals_as_their_column_needs(value, shown):
    assert read(("a", Place({"last": score(value)}))).rows[1][-1].startswith(shown)


def test_the_same_grids_give_the_same_page():
    rows = ("a", place(50.0, 51.0, **NOT_COMPARABLE)), ("b", place(49.0))
    assert page([grid(*rows)]) == page([grid(*rows)])


def test_configurations_shared_by_places_are_written_once():
    few, many = (len(page([grid(*[(f"row {i}", place(50.0, 51.0)) for i in range(n)])])) for n in (100, 200))
    assert (many - few) / 200 < 600  # bytes per run


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """
const out = [];
const head = document.querySelector("thead th:last-child");
const rows = () => [...document.querySelector("tbody").rows];
const shown = () => rows().filter((row) => !row.hidden && getComputedStyle(row).display !== "none");
const labels = () => shown().map((row) => row.cells[0].textContent).join(" ");
const click = (element) => element.dispatchEvent(new MouseEvent("click", { bubbles: true }));
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
for (const turn of [1, 2, 3]) {
  click(head.querySelector("button"));
  out.push(head.getAttribute("aria-sort"), labels());
}
const filter = document.getElementById("filter");
filter.value = "HIGH"; filter.dispatchEvent(new Event("input")); out.push(labels());
filter.value = ""; filter.dispatchEvent(new Event("input"));
const [first, second] = document.querySelectorAll(".place");
const panel = document.getElementById("panel");
first.focus(); press("ArrowDown"); out.push(document.activeElement === second, first.tabIndex, second.tabIndex);
click(second);
out.push(panel.hidden, panel.parentElement.className, second.getAttribute("aria-expanded"));
const table = document.querySelector(".scroll").getBoundingClientRect(), side = panel.getBoundingClientRect();
out.push(innerWidth > 1100 ? side.left >= table.right && side.top < table.bottom : side.top >= table.bottom);
out.push(document.documentElement.scrollWidth <= innerWidth);
press("Escape"); out.push(panel.hidden, document.activeElement === second);
const region = document.querySelector(".scroll");
region.style.height = "60px"; region.scrollTop = 30;
out.push(head.getBoundingClientRect().top <= region.getBoundingClientRect().top + 2);
document.documentElement.dataset.out = out.join("|");
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1400, 420])
def test_sorting_filter_keys_and_panel_in_a_browser(tmp_path, width):
    bad = record(last=60.0)
    high = Row("high", group="baseline", places={COLA: Place({"last": score(60.0)}, records=(bad,))})
    rows = [
        Row("low", group="paper", places={COLA: place(10.0)}),
        Row("mid", group="paper", places={COLA: place(30.0)}),
        high,
    ]
    text = page([Grid("t", "t", [COLA], rows, "last")])
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()  # or the page would not let it run
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
        "</body>", f"<script>{PROBE}</script></body>"
    )
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--disable-quic", f"--window-size={width},900"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *flags, (tmp_path / "index.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    result = re.search(r'data-out="([^"]*)"', done.stdout)
    assert result, done.stderr[-2000:]
    groups = "Methods of the papers low mid Baselines high"
    expected = ["descending", "high mid low", "ascending", "low mid high", "none", groups, "high"]
    expected += ["true", "-1", "0", "false", "beside", "true", "true", "true", "true", "true", "true"]
    assert result[1].split("|") == expected
