"""The page in one piece: what is on it, and what must not be."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from judged import BASE, Maker, counts, right, wrong
from PIL import Image

from vlm_ops.artifacts import AnswerSet, PreparedData
from vlm_ops.config.benchmark import BenchmarkSettings
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ChartsData
from vlm_ops.evaluation import statistics, words
from vlm_ops.records import Row
from vlm_ops.reporting.page import render, section
from vlm_ops.reporting.pictures import Album
from vlm_ops.reporting.results import Results
from vlm_ops.reporting.run import Run, run_page
from vlm_ops.reporting.tables import settings
from vlm_ops.steps.benchmarks import asked_step, unseen_rows
from vlm_ops.store.jsonl import write_jsonl

MOST_BYTES = 3_000_000
HEADINGS = ("Scores: test rows", "Data", "Looks at the test rows", "Time and memory",
            "Versions and seeds", "How to make it again")  # fmt: skip
CSS = Path("src/vlm_ops/reporting/page.css")


class Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(" ".join(data.split()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def shown(run: Run) -> str:
    return render(run_page(run))


def test_a_judged_run_has_its_verdict_first_and_every_section(maker: Maker) -> None:
    run = maker.promotion()
    html = shown(run)
    read = Reader(html)
    assert "<title>demo, version 3: refused</title>" in html  # eight groups are too few
    assert run.decision is not None
    places = [html.index(f">{heading}</h2>") for heading in HEADINGS]
    assert places == sorted(places)
    assert html.index('<p class="word">refused</p>') < places[0]
    for reason in run.decision.verdict.reasons:
        assert reason.partition(": ")[2] in read.texts
    for model in ("candidate", "champion", "base", "candidate_gray", "candidate_swapped",
                  "majority"):  # fmt: skip
        assert model in read.texts
    assert "sft" not in read.texts  # it is the candidate
    assert "Two rows were refused." in read.texts
    assert f"git checkout {'c0ffee' * 6}" in html


def test_its_numbers_are_those_of_the_steps(maker: Maker) -> None:
    run = maker.promotion()
    texts = Reader(shown(run)).texts
    score = run.outputs["evaluate"].scores["candidate_swapped"]
    assert f"{words.percent(0.5)} ({words.spread(score)})" in texts
    assert run.decision is not None
    for found in run.decision.verdict.differences:
        numbers = [words.signed(value) for value in (found.points, found.low, found.high)]
        assert f"{numbers[0]} ({numbers[1]} to {numbers[2]})" in texts


def test_rows_won_lost_and_wrong_in_both_stand_with_their_pictures(maker: Maker) -> None:
    read = Reader(shown(maker.promotion()))
    # Right everywhere against right where it is about a number: the eight colors are won.
    for counted in ("8 of 16 rows", "0 of 16 rows"):
        assert counted in read.texts
    assert "What color is the square?" in read.texts
    assert "Purple" in read.texts
    assert len(read.all("img")) == 6
    for image in read.all("img"):
        assert str(image["src"]).startswith("data:image/webp;base64,")
        assert image["alt"]


def test_nothing_is_loaded_and_nothing_runs(maker: Maker) -> None:
    html = shown(maker.promotion())
    read = Reader(html)
    for tag in ("script", "link", "iframe", "object", "embed", "base", "form"):
        assert not read.all(tag), tag
    loaded = [value for tag, attributes in read.tags for key, value in attributes.items()
              if key in ("src", "srcset", "poster", "background")
              or (key in ("href", "xlink:href") and tag != "a")]  # fmt: skip
    assert all(str(value).startswith("data:") for value in loaded)
    assert not [key for _, attributes in read.tags for key in attributes if key.startswith("on")]
    assert not re.search(r"url\(|@import", html)
    (policy,) = [m for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy["content"])


def test_what_a_model_says_is_text(maker: Maker) -> None:
    attack = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}'
    html = shown(maker.promotion(candidate=lambda row: attack))
    read = Reader(html)
    assert attack in read.texts
    assert not read.all("script")
    assert all("onerror" not in image for image in read.all("img"))


def test_a_trial_has_less_on_it(maker: Maker) -> None:
    html = shown(maker.trial())
    texts = Reader(html).texts
    assert "<title>demo, a trial: trial</title>" in html
    assert ">Scores: validation rows</h2>" in html
    assert ">Looks at the test rows</h2>" not in html
    assert "What changed: candidate against base" in texts
    assert "--promote" not in html


def test_without_a_champion_the_base_is_what_changed(maker: Maker) -> None:
    html = shown(maker.promotion(champion=None))
    assert "What changed: candidate against base" in html
    assert "no champion" in Reader(html).texts


def test_one_model_alone_and_rows_without_images(maker: Maker) -> None:
    rows = {row.id: row.model_copy(update={"images": ()}) for row in maker.data.rows("test")}
    said = maker.answers(right, BASE).read()
    page = replace(
        run_page(maker.trial()),
        sections=(
            section("alone", Results({"only": said}, {}, Path), {"only": ""}, None, Album()),
            section(
                "words", Results({"a": said, "b": maker.answers(wrong, BASE).read()}, rows, Path),
                {"a": "", "b": ""}, "b", Album(),
            ),
        ),
    )  # fmt: skip
    html = render(page)
    assert "What changed" in html.partition(">Scores: words</h2>")[2]
    assert "What changed" not in html.partition(">Scores: words</h2>")[0]
    assert not Reader(html).all("img")


def beside(run: Run, name: str, data: PreparedData, said: dict[str, AnswerSet]) -> Run:
    """A run that measured another benchmark too."""
    one = BenchmarkSettings(name=name, title=name, data=ChartsData())
    config = run.config.model_copy(update={"benchmarks": (*run.config.benchmarks, one)})
    answers = {asked_step(who, name): found for who, found in said.items()}
    return replace(run, config=config, outputs={**run.outputs, unseen_rows(name): data, **answers})


def test_other_benchmarks_stand_beside_the_test_rows(maker: Maker) -> None:
    said = {"candidate": maker.answers(right, BASE), "base": maker.answers(counts, BASE)}
    said["sft"] = said["candidate"]  # it is the candidate
    run = beside(maker.promotion(), "chart-yesno", maker.data, said)
    gray = {asked_step("candidate", "chart-yesno", gray=True): maker.answers(wrong, BASE)}
    page = run_page(replace(run, outputs={**run.outputs, **gray}))
    assert list(page.sections[-1].scores) == ["candidate", "base", "candidate_gray"]
    html = render(page)
    assert "on gray images" in html.partition(">Scores: chart-yesno</h2>")[2]
    found = statistics.difference(
        said["candidate"].read(), said["base"].read(), than="base", resamples=200, seed=0
    )
    assert html.index(">Scores: test rows</h2>") < html.index(">Scores: chart-yesno</h2>")
    assert words.signed(found.points) in html.partition(">Scores: chart-yesno</h2>")[2]


def test_a_page_of_many_heavy_pictures_stays_small(maker: Maker, tmp_path: Path) -> None:
    """Noise is what packs worst: the album has room for a bounded number of such pictures."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for number, row in enumerate(maker.data.rows("test")):
        file = tmp_path / f"noise-{number}.png"
        Image.fromarray(rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)).save(file)
        images = (row.images[0].model_copy(update={"path": file.name}),)
        rows.append(row.model_copy(update={"images": images}))
    write_jsonl(tmp_path / "test.jsonl", rows)
    noise = maker.data.model_copy(update={"folder": tmp_path, "images": Path()})
    said = {"candidate": maker.answers(right, BASE), "base": maker.answers(wrong, BASE)}
    run = maker.promotion()
    for number in range(4):
        run = beside(run, f"noise-{number}", noise, said)
    html = render(run_page(run))
    assert len(html.encode()) < MOST_BYTES
    assert len(Reader(html).all("img")) > 12


def test_the_file_on_the_page_makes_the_same_configuration(maker: Maker, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(settings(maker.config))
    assert load_config(str(file)) == maker.config


def test_who_does_not_see_it_is_told(maker: Maker) -> None:
    read = Reader(shown(maker.promotion()))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in read.all("svg"))
    assert all(cell["scope"] in ("row", "col") for cell in read.all("th"))
    assert read.all("html") == [{"lang": "en"}]
    names = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_stand_out_from_their_grounds(theme: int) -> None:
    """4.5 to 1, as WCAG 2.2 asks of text (success criterion 1.4.3)."""
    blocks = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)
    colors = dict(re.findall(r"--(\w+): (#\w+)", blocks[theme]))
    for ink in ("ink", "soft", "accent", "other", "good", "bad"):
        for ground in ("paper", "card"):
            assert _contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(_luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize(("level", "word"), [(0.025, "better"), (0.0038, "no difference shown")])
def test_better_is_said_at_the_level_of_the_gates_look(
    maker: Maker, level: float, word: str
) -> None:
    """Eight groups: luck alone gives as much in 1 of 256 cases."""
    some = {row.group for row in maker.data.rows("test")[:8]}
    said = {
        "new": maker.answers(right, BASE).read(),
        "old": maker.answers(lambda r: wrong(r) if r.group in some else counts(r), BASE).read(),
    }
    results = Results(said, {}, Path, resamples=200, level=level)
    found = results.difference("new", "old")
    assert found.low > 0
    told = results.judged(found, "new")
    assert told[0] == word
    assert "luck alone gives as much in 0.39 % of cases" in told[1]
    worse = results.judged(results.difference("old", "new"), "old")
    assert worse[0] == ("worse" if word == "better" else word)


def test_what_stands_beside_a_score_is_shown(maker: Maker) -> None:
    said = maker.answers(lambda row: f"{row.answers[0]}.", BASE).read()
    shown = section("dots", Results({"only": said}, {}, Path), {"only": ""}, None, Album())
    html = render(replace(run_page(maker.trial()), sections=(shown,)))
    count = sum(not answer.relaxed for answer in said)
    assert count > 0
    assert f"wrong in form only {count}" in html.replace("\N{NO-BREAK SPACE}", " ")
