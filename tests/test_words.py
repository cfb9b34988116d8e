"""Words that were given up stay given up: one thing has one name, everywhere.

Every line of code, configuration and documentation is read, so identifiers, keys, messages,
docstrings and comments all count. ``docs/glossary.md`` says which word stands in a retired one's
place. A line that must know a former name to read old files says so: ``# former name``.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READ = {".py", ".yaml", ".yml", ".toml", ".md"}
ROOMS = ("src", "flows", "tests", "benchmarks", "docs", "infra")
NOT_READ = (
    "docs/adr",  # decisions stand as they were taken
    "CHANGELOG.md",  # and so does what changed
    "tests/test_words.py",
    "tests/config/test_former.py",  # is about a former name
    "tests/integration/before",  # is what a former version wrote
)
FORMER = "# former name"

RETIRED = {
    "cluster": "group",
    "blind": "on gray images; sft_gray, candidate_gray, over_gray",
    r"(?<![a-z])n_charts": "n_images",
    r"(?<![a-z])n_tables": "n_groups",
    "by_table": "by_group",
    r"conversations?(?![a-z])": "row",
}

GATE_WORDS = ("keep", "kept", "promote", "keep the champion")
"""What the gate's verdict and the alias were called. The gate accepts or refuses, the alias moves
or stays. As English words they are free; as values in code they are not."""

OTHER_MEANINGS = {
    ("keep", "src/vlm_ops/charts"): "which columns of a table are kept",
    ("keep", "src/vlm_ops/training/engine"): "which tokens of a packed row are seen",
    ("promote", "src/vlm_ops/registry"): "what was done to the alias, beside rollback",
    ("promote", "flows"): "a key of `vlm-ops run --json`, which others read",
    ("kept", "flows"): "a status in `vlm-ops run --json`, which others read",
    ("kept", "src/vlm_ops/cli"): "the same",
}
"""Where a value has one of the gate's former words and means something else."""


def texts() -> list[Path]:
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in READ]
    found += [path for path in ROOT.glob("*") if path.suffix in READ]
    return sorted(path for path in found if not _under(path, NOT_READ))


def retired(line: str) -> Iterator[str]:
    """The retired words in a line, each with what to say instead."""
    if FORMER not in line:
        for pattern, instead in RETIRED.items():
            if found := re.search(pattern, line, re.IGNORECASE):
                yield f"{found.group()!r}, now: {instead}"


def gate_values(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of the string literals that are one of the gate's former words."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Constant) or node.value not in GATE_WORDS:
            continue
        if FORMER not in lines[node.lineno - 1]:
            yield node.lineno, str(node.value)


def without_glossary_of_retired_words(path: Path) -> str:
    """A file's text; the glossary's part on retired words, up to the next heading, left blank."""
    text = path.read_text(encoding="utf-8")
    if path.name != "glossary.md":
        return text
    part = re.compile(
        r"^#+ [^\n]*\bretired\b.*?(?=^#|\Z)", re.IGNORECASE | re.MULTILINE | re.DOTALL
    )
    return part.sub(lambda found: "\n" * found.group().count("\n"), text)


def test_no_retired_word_is_left() -> None:
    found = [
        f"{_place(path)}:{number}: {word}"
        for path in texts()
        for number, line in enumerate(without_glossary_of_retired_words(path).splitlines(), 1)
        for word in retired(line)
    ]
    found += [f"{_place(path)}: {word} in its name" for path in texts()
              for word in retired(_place(path))]  # fmt: skip
    if found:
        pytest.fail(f"{len(found)} retired words:\n" + "\n".join(found), pytrace=False)


def test_the_gate_accepts_or_refuses() -> None:
    found = [
        f"{_place(path)}:{number}: {word!r}"
        for path in texts()
        if path.suffix == ".py" and _under(path, ("src", "flows"))
        for number, word in gate_values(path.read_text(encoding="utf-8"))
        if not any(_under(path, (room,)) for other, room in OTHER_MEANINGS if other == word)
    ]
    if found:
        pytest.fail("the gate's former words as values:\n" + "\n".join(found), pytrace=False)


@pytest.mark.parametrize(
    "line",
    [
        "clusters: int",
        "def of_clustered_rows():",
        'blind = "x"',
        "gate: {over_blind: 0.1}",
        "SeesBlindly",
        "n_charts=3",
        "self.n_tables",
        'scores["by_table"]',
        "class Conversation:",
        "list[Conversations]",
    ],
)
def test_a_retired_word_is_found_in_every_dress(line: str) -> None:
    assert list(retired(line))


@pytest.mark.parametrize(
    "line",
    [
        "train_charts: 900",
        "VALIDATION_TABLES = 11",
        "conversational columns, as TRL calls them",
        'renamed = {"cluster": None}  # former name',
    ],
)
def test_other_words_are_free(line: str) -> None:
    assert not list(retired(line))


def test_a_gate_word_is_found_as_a_value_alone() -> None:
    source = 'verdict = "keep"\n"""We keep it."""\nkeep = {"keep": 1}  # former name\n'
    assert list(gate_values(source)) == [(1, "keep")]


def test_the_glossary_may_name_what_it_retired(tmp_path: Path) -> None:
    glossary = tmp_path / "glossary.md"
    glossary.write_text("# Words\nblind\n## Retired words\ncluster\n## Others\nby_table\n")
    left = without_glossary_of_retired_words(glossary).splitlines()
    assert [number for number, line in enumerate(left, 1) if list(retired(line))] == [2, 6]


def _under(path: Path, places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(ROOT / place) for place in places)


def _place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
