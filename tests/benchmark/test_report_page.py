"""The page of a report, in a real browser: sorting, filtering, theme, silence on the network, names that do nothing."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.report import ReportRequest, assemble, write_report
from repbench.benchmark.report.render.figures import confusion_figure, cost_figure, efficiency_figure, layers_figure
from tests.benchmark.report_records import small_grid, write

HOSTILE = (
    "<script>alert(1)</script>",
    "</script></style></svg><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "--><b>]]>",
    "{{ 7 * 7 }}{% raw %}",
    '=HYPERLINK("http://x.invalid","y")',
    "a|b`c**d__e[f](http://x.invalid)",
    "$\\frac{1}{2}$ \\input{/etc/passwd} 5%",
    "\x1b[31mred\u202egnp",
    "你好 ü",
    "x" * 10_000,
)


class Elements(HTMLParser):
    """Elements, attributes, links and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def write_hostile(root: Path, names: tuple[str, ...]) -> None:
    """Records that are called `names` wherever a record has a name."""
    for number, name in enumerate(names):
        path = write(
            root, upstream=name, checkpoint=name, corpus=f"{name}", policy=name, layer=name[:50], fingerprint="d" * 64,
            skill=0.5 + number / 50, layer_names=(name, name),
        )  # fmt: skip
        assert path.is_file()
        write(root, upstream=name, checkpoint=name, skill=0.5, fraction=0.1)
        write(root, upstream=name, checkpoint=name, skill=0.6, macs=1000 * (number + 1))


def page_of(folder: Path, names: tuple[str, ...]) -> Path:
    """The report of records with such names."""
    write_hostile(folder / "runs", names)
    write_report(ReportRequest(runs=(folder / "runs",), out=folder / "out"))
    return folder / "out"


@pytest.mark.slow
def test_fault_46_names_are_inert_in_every_form(tmp_path: Path) -> None:
    plain = page_of(tmp_path / "plain", tuple(f"name{number}" for number in range(len(HOSTILE))))
    hostile = page_of(tmp_path / "hostile", HOSTILE)
    expected, found = (Elements((out / "index.html").read_text("utf-8")) for out in (plain, hostile))
    assert found.tags - {"wbr"} == expected.tags  # of a name with colons
    assert found.attributes == expected.attributes
    assert not [name for name in found.attributes if name.startswith("on") or name == "style"]
    assert all(link.startswith("#") for link in found.links)
    assert "<script>alert(1)</script>" in found.text
    assert "{{ 7 * 7 }}" in found.text
    with (hostile / "results.csv").open(encoding="utf-8", newline="") as stream:
        cells = [cell for line in csv.reader(stream) for cell in line]
    assert not [cell for cell in cells if cell[:1] in {"=", "+", "@"} or re.match(r"-[^\d]", cell)]
    for name in ("index.html", "report.md", "report.tex", "results.csv"):
        text = (hostile / name).read_text("utf-8")
        assert "\x1b" not in text, name
        assert "\u202e" not in text, name
        assert "x" * 2000 not in text, name
    markdown = (hostile / "report.md").read_text("utf-8")
    assert "<script" not in re.sub(r"`.*`", "", markdown)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {
        len(re.findall(r"(?<!\\)\|", line))
        for line in (plain / "report.md").read_text("utf-8").splitlines()
        if line.startswith("|")
    }
    latex = (hostile / "report.tex").read_text("utf-8")
    assert "\\input{/etc" not in latex
    assert "\\frac{1}{2}" not in latex


def test_long_costs_are_a_range_that_opens_and_long_names_can_be_broken(tmp_path: Path) -> None:
    cost = {"parameters": 1, "macs_per_second": 1, "extract_seconds": 0.1, "real_time_factor": 500.0,
            "peak_rss_bytes": 1000, "device": "cpu"}  # fmt: skip
    for task, seconds in (("phone", 0.2), ("sentiment", 15.6)):
        write(tmp_path / "runs", task=task, upstream="py:my_models:MyEncoder", cost={**cost, "train_seconds": seconds})
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out", formats=("html",)))
    page = (tmp_path / "out" / "index.html").read_text("utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert '<summary>0.2 s–15.6 s</summary><span class="each">0.2 s phone; 15.6 s sentiment</span>' in page
    assert "py:<wbr>MyEncoder" in page
    assert "“parameters”: those of the upstream, without the head;" in page


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_hostile_names_do_not_stop_latex(tmp_path: Path) -> None:
    import subprocess

    out = page_of(tmp_path, HOSTILE)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    finished = subprocess.run(command, cwd=out, capture_output=True, timeout=120)
    assert finished.returncode == 0, finished.stdout[-2000:]


@pytest.mark.slow
def test_the_same_records_make_the_same_files(tmp_path: Path) -> None:
    small_grid(tmp_path / "runs")
    for out in ("a", "b"):
        write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / out))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_figures_have_real_text_and_neither_style_nor_address(tmp_path: Path) -> None:
    small_grid(tmp_path)
    report = assemble([tmp_path])
    figures = [
        *map(efficiency_figure, report.efficiencies), *map(layers_figure, report.profiles),
        *map(cost_figure, report.fronts), *map(confusion_figure, report.confusions),
    ]  # fmt: skip
    assert len(figures) >= 4
    for figure in figures:
        assert "<text" in figure.svg
        assert f'aria-labelledby="{figure.key}-title {figure.key}-text"' in figure.svg
        for absent in ("style=", "<style", "http", "<metadata", "#010203", "#001020", "matplotlib"):
            assert absent not in figure.svg, (figure.key, absent)
        file = figure.as_file()
        assert "class=" not in file
        assert "#0072b2" in file or "#009e73" in file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; skips, with the reason, where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small grid."""
    root = tmp_path_factory.mktemp("page")
    small_grid(root / "runs")
    write_report(ReportRequest(runs=(root / "runs",), out=root / "out", formats=("html", "json")))
    return root / "out" / "index.html"


def names(browser: Any) -> list[str]:
    """System and layer of the rows that are shown, in their order."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#rows tr')].filter(row => row.offsetParent !== null)"
        ".map(row => row.dataset.system + ' ' + row.children[2].textContent);"
    )
    return found


def heading(browser: Any, label: str) -> Any:
    """The heading of a column."""
    return browser.find_element("css selector", f"#table th[data-label='{label}']")


def choose(browser: Any, name: str, text: str) -> None:
    """Choose in a filter, as a reader does."""
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("css selector", f"select[data-filter='{name}']")).select_by_visible_text(text)


def test_sorting_puts_the_best_on_top_and_the_missing_below(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    column = heading(browser, "phone")
    assert column.get_attribute("aria-sort") == "descending"
    assert names(browser)[0] == "good last"
    column.find_element("css selector", "button").send_keys("\ue007")
    assert column.get_attribute("aria-sort") == "ascending"
    assert names(browser)[-1] == "good last"
    sentiment = heading(browser, "sentiment")
    sentiment.find_element("css selector", "button").click()
    assert (column.get_attribute("aria-sort"), sentiment.get_attribute("aria-sort")) == ("none", "descending")
    assert names(browser)[:2] == ["good last", "mel last"]
    sentiment.find_element("css selector", "button").click()
    assert names(browser)[:2] == ["mel last", "good last"]


def test_filters_hide_rows_and_columns_and_coverage_follows(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    assert len(names(browser)) == 6
    choose(browser, "layer", "1")
    assert names(browser) == ["good 1"]
    choose(browser, "layer", "all")
    choose(browser, "fraction", "10 %")
    assert sorted(names(browser)) == ["apc (untrained) last", "good last", "mel last"]
    browser.find_element("id", "reset").click()
    assert len(names(browser)) == 9
    choose(browser, "task", "sentiment")
    assert not heading(browser, "phone").is_displayed()
    assert sorted(names(browser)) == ["good last", "mel last"]
    covered = [each.text for each in browser.find_elements("css selector", "#rows [data-coverage]") if each.text]
    assert covered == ["1/1", "1/1"]
    browser.find_element("id", "search").send_keys("MEL")
    assert names(browser) == ["mel last"]
    assert browser.find_element("id", "status").text == "1 of 9 rows shown"


def test_what_was_heard_before_filters_by_the_columns_that_are_shown(browser: Any, tmp_path: Path) -> None:
    common = {"basis": ["why"], "declared": ["data"], "n_test": 20}
    heard = {**common, "verdict": "heard", "n_overlapping": 3}
    apart = {**common, "verdict": "not heard", "n_overlapping": 0}
    runs = tmp_path / "runs"
    write(runs, upstream="mel", heard=apart)
    write(runs, upstream="both", skill=0.9, heard=heard)
    write(runs, upstream="both", skill=0.9, heard=apart, corpus="other", fingerprint="b" * 64)
    write(runs, upstream="old", skill=0.5)
    write_report(ReportRequest(runs=(runs,), out=tmp_path / "out", formats=("html",)))
    browser.get((tmp_path / "out/index.html").as_uri())
    words = "return [...document.querySelectorAll('#rows [data-heard] summary')].map(each => each.textContent);"
    assert sorted(browser.execute_script(words)) == ["heard", "not heard", "unknown"]
    choose(browser, "heard", "not heard")
    assert names(browser) == ["mel last"]
    choose(browser, "heard", "unknown")
    assert names(browser) == ["old last"]
    choose(browser, "corpus", "other")
    assert names(browser) == []
    # by the keyboard alone: from `unknown` up to `not heard`
    browser.find_element("css selector", "select[data-filter='heard']").send_keys("\ue013\ue013")
    assert names(browser) == ["both last"]
    details = browser.find_element("css selector", "#rows tr:not([hidden]) [data-heard] details")
    assert details.get_attribute("open") is None
    details.find_element("css selector", "summary").send_keys("\ue007")
    assert details.get_attribute("open") is not None
    assert "3 of 20" not in details.text
    assert "why" in details.text


def test_the_theme_follows_the_system_and_the_button(browser: Any, page: Path) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    seen: dict[str, str] = {}
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        browser.get(page.as_uri())
        seen[scheme] = browser.execute_script(colour)
    assert seen["light"] != seen["dark"]
    browser.find_element("id", "theme").click()
    assert browser.execute_script(colour) == seen["light"]
    browser.refresh()
    assert browser.execute_script(colour) == seen["light"]
    browser.execute_script("localStorage.clear()")


def test_a_number_leads_to_its_record_and_its_command(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    records = json.loads(page.with_name("results.json").read_text("utf-8"))["cells"][0]["records"]
    key = json.loads(page.with_name("results.json").read_text("utf-8"))["cells"][0]["key"]
    browser.find_element("css selector", f"a[data-behind='n-{key}']").click()
    dialog = browser.find_element("id", "behind")
    assert dialog.is_displayed()
    assert all(record["id"] in dialog.text for record in records)
    assert records[0]["command"].split(" --seed ")[0] in dialog.text
    dialog.find_element("css selector", ".close").click()
    assert not dialog.is_displayed()


@pytest.mark.slow
def test_the_page_asks_nothing_of_the_network_and_complains_of_nothing(browser: Any, tmp_path: Path) -> None:
    out = page_of(tmp_path, HOSTILE)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get((out / "index.html").as_uri())
    for button in browser.find_elements("css selector", "#table thead button"):
        browser.execute_script("arguments[0].click()", button)
    browser.find_element("id", "search").send_keys("name\n")
    for select in browser.find_elements("css selector", "select[data-filter]"):
        for option in select.find_elements("css selector", "option"):
            option.click()
    for pressed in ("#reset", "#theme", "a[data-behind]", "#behind button[data-copy]", "#behind .close"):
        browser.execute_script("document.querySelector(arguments[0]).click()", pressed)
    browser.execute_script("localStorage.clear()")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert asked == {(out / "index.html").as_uri()}
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('script, img, b b').length") == 1


def test_enter_in_the_search_box_sends_nothing(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    browser.get_log("browser")
    browser.find_element("id", "search").send_keys("mel\n")
    assert browser.current_url == page.as_uri()
    assert browser.get_log("browser") == []
    assert names(browser) == ["mel last"]


def test_an_address_of_a_number_opens_its_record(browser: Any, page: Path) -> None:
    key = json.loads(page.with_name("results.json").read_text("utf-8"))["cells"][-1]["key"]
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#n-{key}")
    record = browser.find_element("id", f"n-{key}")
    assert record.get_attribute("open") is not None
    assert browser.execute_script("return arguments[0].getBoundingClientRect().top < innerHeight", record)


def test_what_is_said_to_be_bold_is_bold_in_every_table_and_is_heard(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for section in ("cost", "rates"):
        cells = browser.find_elements("css selector", f"#{section} ~ .figures td.best")
        assert cells
        for cell in cells:
            assert int(browser.execute_script("return getComputedStyle(arguments[0]).fontWeight", cell)) >= 600
            assert cell.get_attribute("textContent").strip().find("bold") > 0


def test_columns_of_one_task_have_buttons_of_different_names_and_empty_cells_say_so(
    browser: Any, tmp_path: Path
) -> None:
    write(tmp_path / "runs", corpus="one", fingerprint="1" * 64)
    write(tmp_path / "runs", corpus="two", fingerprint="2" * 64, upstream="fbank")
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path, formats=("html",)))
    browser.get((tmp_path / "index.html").as_uri())
    buttons = browser.find_elements("css selector", "#table thead th.q button")
    assert [button.accessible_name for button in buttons] == ["phone, one, accuracy ↑", "phone, two, accuracy ↑"]
    empty = browser.execute_script(
        "return [...document.querySelectorAll('#rows td')].filter(each => !each.textContent.trim()).length"
    )
    assert empty == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_the_screen(browser: Any, page: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    assert browser.execute_script("const e = document.documentElement; return e.scrollWidth - e.clientWidth") == 0
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_control_has_a_name_and_every_heading_a_scope(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('select, input, button')].filter(each => !each.textContent.trim() &&"
        " !each.labels?.length && !each.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    assert browser.execute_script("return document.querySelectorAll('th:not([scope])').length") == 0
    assert browser.execute_script("return document.querySelectorAll('figure > svg:not([aria-labelledby])').length") == 0
