"""The manual is true: it is built without a warning, and what it shows of commands, settings and files is there."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import api_reference
import manual
import readme_numbers
import repbench
from repbench.benchmark.leaderboard.settings import LeaderboardSettings
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.record import json_schema
from repbench.benchmark.sweep.plan import load_plan
from repbench.configs.loader import build, load_yaml
from repbench.downstream.heads import HEADS
from repbench.registry import registry
from repbench.upstream.adapters.declarations import declaration_of
from repbench.upstream.adapters.feature_folder import FolderDeclaration
from repbench.upstream.adapters.huggingface_training_data import TrainingDeclaration
from repbench.upstream.adapters.onnx_graph import GraphSettings
from repbench.upstream.adapters.unit_folder import UnitsDeclaration
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.pretraining.settings import TrainingSettings
from tests.pages import (
    DOCS,
    ROOT,
    Block,
    anchors,
    blocks,
    commands,
    every_option,
    links,
    options_in_prose,
    pages,
    parse,
)

OPTIONS_OF_OTHERS = {"--fail-on-warning"}
"""Spoken of in prose: of Sphinx."""


def page_ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_in(*languages: str) -> list[Block]:
    return [block for page in pages() for block in blocks(page) if block.language in languages]


every_page = pytest.mark.parametrize("page", pages(), ids=page_ids)


# Made of the code


@pytest.mark.parametrize("name", manual.PAGES)
def test_pages_made_of_the_code_are_those_it_makes(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == manual.PAGES[name](), f"docs/{name} is not what the code says; run `make reference`"


def test_numbers_of_the_readme_are_those_of_their_files() -> None:
    text = readme_numbers.README.read_text(encoding="utf-8")
    assert {block[2] for block in readme_numbers.BLOCK.finditer(text)} == readme_numbers.BLOCKS.keys()
    assert readme_numbers.with_numbers(text) == text, "run `python tools/readme_numbers.py`"


def test_the_readme_measures_nothing_outside_of_those_numbers() -> None:
    text = readme_numbers.BLOCK.sub("", readme_numbers.README.read_text(encoding="utf-8"))
    assert not re.findall(r"\d[\d.,]*\s?(?:s|×|seconds|minutes|hours|times|[MG]i?B|%)(?!\w)", text)


def test_every_command_has_its_section() -> None:
    there = anchors(DOCS / "commands.md")
    every = dict(manual.walk_commands())
    assert len(every) > 20
    assert {path.replace(" ", "-") for path in every} <= there
    for path, command in every.items():
        assert "--json" in [name for option in command.params for name in option.opts], f"{path} does not take --json"


def test_every_settings_class_is_shown() -> None:
    source = Path(repbench.__file__).parent
    defined = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r"^class ([A-Z]\w*)\(Settings\)", path.read_text(encoding="utf-8"), re.M)
    }
    shown: set[type] = set()
    for section in manual.SETTINGS:
        "".join(manual._tables(section.model, "", section.above, shown))
    assert defined <= {model.__name__ for model in shown}


def test_a_setting_without_a_sentence_is_found() -> None:
    for section in manual.SETTINGS:
        assert manual.sentences_of(section.model).keys() == section.model.model_fields.keys(), section.title


def test_every_front_end_is_described_as_it_declares_itself() -> None:
    text = (DOCS / "upstreams.md").read_text(encoding="utf-8")
    described = dict(re.findall(r"^\| `(\w+)` \| (\d+ \| \d+ \| \d+ \| \d+ \| (?:yes|no)) \|", text, re.M))
    names = {row["name"] for row in registry().rows("upstream") if row["origin"] == "repbench"}
    assert all(f"`{name}`" in text for name in names)
    assert described.keys() == names - {"mockingjay", "apc", "precomputed"}
    for name, said in described.items():
        info = repbench.load_upstream(name).info
        numbers = (info.width, info.hop_samples, info.first_center_samples, info.min_samples)
        assert said == " | ".join([*map(str, numbers), "yes" if info.utterance_normalised else "no"]), name


def test_every_public_name_is_on_the_page_of_the_python_interface() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}
    assert repbench.__all__ == api_reference.public_names(api_reference.MODULES[0])
    for module in api_reference.MODULES:
        found = importlib.import_module(module.name)
        for name in api_reference.public_names(module):
            value = getattr(found, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                first = inspect.cleandoc(value.__doc__ or "").partition("\n")[0]
                assert f"\n### {name}\n" in sections[module.name], f"{module.name}.{name}"
                assert first.endswith((".", ":", ",")) or len(first) > 60, f"{module.name}.{name} has no sentence"


def test_docstrings_become_markdown() -> None:
    def resampled(samples: list[float], *, factor: int = 2, **options: str) -> list[float]:
        """Change a rate*.

        Args:
            samples: (T,) of them,
                in order.
            factor: By which.
            **options: Others.

        Raises:
            ValueError: There are none.
        """
        raise NotImplementedError(samples, factor, options)

    shown = "\n".join(api_reference._described("resampled", resampled))

    assert "resampled(samples: list[float], *, factor: int = 2, **options: str) -> list[float]" in shown
    assert "Change a rate\\*." in shown
    assert "* `samples`: (T,) of them, in order.\n* `factor`: By which.\n* `**options`: Others." in shown
    assert "*Raises*\n\n* `ValueError`: There are none." in shown


NEEDED = {"attribute": {"attribute": "a"}, "regression": {"attribute": "a"}}
"""The options without which a task is not built."""


def test_every_task_is_described_with_its_metrics_heads_and_options() -> None:
    sections = (DOCS / "tasks.md").read_text(encoding="utf-8").split("\n## ")[1:]
    described = {section.partition("\n")[0]: section for section in sections}
    assert described.keys() == {row["name"] for row in registry().rows("downstream") if row["origin"] == "repbench"}
    for name, section in described.items():
        factory: Any = registry().find("downstream", name).entry.load()
        options = [f"task.{option}" for option in inspect.signature(factory).parameters]
        task = factory(**NEEDED.get(name, {}))
        heads = [] if "Heads as for" in section else HEADS.get(task.info.problem, ())  # none without training
        for term in (*task.info.metrics, *heads, *options):
            assert f"`{term}`" in section, f"{name} does not tell of {term}"
        assert f"`{task.info.default_head}` (default)" in section or not heads


def test_every_field_of_a_record_is_described() -> None:
    text = (DOCS / "record.md").read_text(encoding="utf-8")
    schema = json_schema()
    for name, field in schema["properties"].items():
        whole = f"| `{name}` |" in text or f"`{name}`" in text
        part = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
        for inner in part.get("properties", {}):
            assert f"`{name}.{inner}`" in text or (whole and f"`{inner}`" in text), f"{name}.{inner}"
        assert whole or part, name


NAMED = re.compile(r"`((?:src|tests|docs|tools|benchmarks|examples|locks)/[\w./-]*|[\w.-]+\.(?:md|toml|cff))`")
"""A file or folder of the repository, in prose."""


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_a_guide_names_exist(name: str) -> None:
    named = set(NAMED.findall((ROOT / name).read_text(encoding="utf-8")))
    assert len(named) > 3
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]


# What pages show


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        target = urlsplit(link)
        if target.scheme:
            assert target.scheme in {"https", "mailto"}, link
            continue
        place = (page.parent / unquote(target.path)).resolve() if target.path else page
        assert place.exists(), f"{link} leads nowhere"
        if target.fragment:
            assert target.fragment in anchors(place), f"{link}: there is no such heading"


@every_page
def test_benchmarks_and_results_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"\bbenchmarks/[\w/]+\.(?:py|json|csv|yaml)\b", page.read_text(encoding="utf-8")))
    assert not [name for name in named if not (ROOT / name).is_file()]


@every_page
def test_commands_can_be_given(page: Path) -> None:
    for shown in commands(page):
        complaint = parse(shown.words)
        missing = complaint is not None and complaint.startswith("Missing ")
        assert complaint is None or (missing and not shown.whole), f"{shown.place}: {shown.words}: {complaint}"


def test_commands_are_found() -> None:
    found = [shown for page in pages() for shown in commands(page)]
    assert sum(shown.whole for shown in found) > 80
    assert parse(["run", "--upstream", "mel", "--downstream", "phone", "--sed", "0"])
    assert parse(["corpus", "prepair"])
    assert parse(["run", "--upstream", "mel", "--downstream", "phone", "--seed", "first"])


@every_page
def test_options_in_prose_exist(page: Path) -> None:
    unknown = set(options_in_prose(page)) - every_option() - OPTIONS_OF_OTHERS
    assert not unknown


def test_python_blocks_compile() -> None:
    found = blocks_in("python")
    assert len(found) >= 8
    for page in {block.page for block in found}:
        texts = [block.text for block in found if block.page == page]
        whole = "".join(texts) if page.name == "plugins.md" else None  # one module, grown block by block
        for text in [whole] if whole else texts:
            ast.parse(textwrap.dedent(text), filename=page_ids(page))


def test_toml_blocks_parse() -> None:
    found = blocks_in("toml")
    assert found
    for block in found:
        tomllib.loads(block.text)


@pytest.mark.parametrize("block", blocks_in("yaml"), ids=lambda block: block.place)
def test_yaml_blocks_are_read_by_the_strict_loader(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(block.text, encoding="utf-8")
    if "jobs" in (plain := yaml.safe_load(block.text)):
        return  # a workflow of somebody else
    tree = load_yaml(file)
    assert tree.keys() == plain.keys()
    if "upstreams" in tree:
        load_plan(file)
    elif "questions" in tree:
        build(LeaderboardSettings, tree, file)
    elif tree.keys() == {"trained_on"}:
        build(TrainingDeclaration, tree, file)
    elif "window_samples" in tree or "kind" in tree:
        build(GraphSettings, tree.pop("graph", {}), file)
        declaration_of({"layer_names": ["last"], "width": 1, **tree}, file)
    elif "num_units" in tree:
        build(UnitsDeclaration, tree, file)
    elif "hop_samples" in tree:
        build(FolderDeclaration, tree, file)
    elif "training" in tree:
        build(TrainingSettings, tree.pop("training"), file)
        build(ApcConfig if block.page.name == "settings.md" and is_of_apc(block) else MockingjayConfig, tree, file)
    else:
        build(Protocol, tree, file)


def is_of_apc(block: Block) -> bool:
    return block.text in {
        (Path(repbench.__file__).parent / "configs" / "apc" / f"{name}.yaml").read_text(encoding="utf-8")
        for name in ("base", "tiny", "mockingjay2020")
    }


# The site


class Html(HTMLParser):
    """What a page of the site loads, where its links lead, and where links to it may lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in {"canonical"}:
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", out / "doctrees", DOCS, out / "html"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
    )
    assert (built.returncode, built.stderr) == (0, ""), built.stderr
    return out / "html"


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Html]:
    """The pages of the site."""
    return {page: Html(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}


@pytest.mark.slow
def test_the_site_has_every_page(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file()


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path, parsed: dict[Path, Html]) -> None:
    for page, html in parsed.items():
        foreign = [place for place in html.loads if urlsplit(place).netloc or place.startswith("//")]
        assert not foreign, page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""(url\(|@import)\s*["']?(https?:)?//""", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.slow
def test_the_links_of_the_site_lead_somewhere(parsed: dict[Path, Html]) -> None:
    checked = 0
    for page, html in parsed.items():
        for link in (*html.links, *html.loads):
            target = urlsplit(link)
            if target.scheme:
                continue
            place = (page.parent / unquote(target.path)).resolve() if target.path else page
            assert place.is_file(), f"{page.name}: {link}"
            if target.fragment and place in parsed:
                assert unquote(target.fragment) in parsed[place].ids, f"{page.name}: {link}"
            checked += 1
    assert checked > 1000


# Beside the manual


def test_the_citation_names_this_version() -> None:
    citation: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == version("repbench")
    assert citation["license"] == "MIT"
    assert citation["authors"] == [{"name": "The repbench authors"}]
    assert {"message", "title", "type"} <= citation.keys()
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= reference.keys()
        assert all({"family-names", "given-names"} <= author.keys() for author in reference["authors"])
