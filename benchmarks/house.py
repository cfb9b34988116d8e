"""How big the product's code is, and where it is bigger than the house allows.

Counts every line of the product's Python files, blank ones and comments too: ``src`` and ``flows``
without what serves the demo only, which is named in ``DEMO``. Prints a table and whatever is over a
bar; ends with 1 if there is anything.

    python benchmarks/house.py

Counted like this, the version that the bar on lines comes from has 13,535: its ``src`` and
``flows`` without ``data/charts``, ``models/tiny`` and ``training/tiny*.py``.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("src", "flows")
DEMO = (
    "src/vlm_ops/charts",  # the demo's data: charts and their questions
    "src/vlm_ops/models/tiny",  # the weights of the tiny base
    "src/vlm_ops/pretraining",  # how the tiny base is made
)

LINES = 46_000
"""The version before had 13,535. It was meant not to grow; it did, by what CHANGELOG lists: the
engine's check of itself, what former versions left, safe paths, one store of images,
servers that ask who calls, splits that are remembered, one ground for answers, evidence by group
and a budget for looks, a ledger and a lease for whoever moves the alias, trials, a rollback that
asks; cells with types, refusals, one reading of pictures, near duplicates; chats, settings of
training, `data inspect`, `data diff`, `clean` and `check`; a start at any registered version, a
check before each training, rows against the champion's; pictures at an address, drawn boxes, an
export sent to the hub; nights that come back, a shared store, machines of Ray and several GPUs;
metrics by name, benchmarks and a page for each run; tasks that choose a checkpoint, versions
compared on every benchmark, turns at the GPUs in their order."""
FUNCTION_LINES, LONG_FUNCTIONS = 50, 4
PARAMETERS, WIDE_FUNCTIONS = 6, 12
FILE_LINES, LONG_FILES = 350, 0
SAME_LINES = 6
SYNTAX_ONLY = """
from astroid import builder, manager
builder.AstroidBuilder.delayed_assattr = lambda *_: None
manager.AstroidManager.visit_transforms = lambda _, node: node
"""
"""Told to pylint: read the files and infer nothing. What the lines say is enough to compare them,
and inference follows every import into torch, which takes a minute and a half."""


@dataclass(frozen=True)
class Bar:
    """Something counted, what it may come to, and where it was found."""

    name: str
    found: int
    allowed: int
    places: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether there is more than is allowed."""
        return self.found > self.allowed


@dataclass(frozen=True)
class Function:
    """A function or a method, with its size."""

    place: str
    lines: int
    parameters: int


def main() -> None:
    """Count, print and end with 1 if a bar is crossed."""
    bars = [*sizes(), duplicates(), names()]
    print(f"Product code: {' and '.join(ROOMS)} without {', '.join(DEMO)}")
    for bar in bars:
        print(f"{bar.name:<36}{bar.found:>8,}  at most {bar.allowed:>7,}{'  OVER' * bar.over}")
    for bar in bars:
        if bar.places:
            print(f"\n{bar.name}", *bar.places, sep="\n  ")
    sys.exit(any(bar.over for bar in bars))


def sizes() -> list[Bar]:
    """Count lines, functions and files."""
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in product()}
    functions = [function for path in lines for function in _functions(path)]
    long = [(each.lines, each.place) for each in functions if each.lines > FUNCTION_LINES]
    wide = [(each.parameters, each.place) for each in functions if each.parameters > PARAMETERS]
    files = [(count, _place(path)) for path, count in lines.items() if count > FILE_LINES]
    return [
        Bar("lines", sum(lines.values()), LINES),
        Bar(f"functions over {FUNCTION_LINES} lines", len(long), LONG_FUNCTIONS, _sorted(long)),
        Bar(f"functions over {PARAMETERS} parameters", len(wide), WIDE_FUNCTIONS, _sorted(wide)),
        Bar(f"files over {FILE_LINES} lines", len(files), LONG_FILES, _sorted(files)),
    ]


def product() -> list[Path]:
    """The product's Python files."""
    demo = [ROOT / folder for folder in DEMO]
    files = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return [path for path in files if not any(path.is_relative_to(folder) for folder in demo)]


def names() -> Bar:
    """Find test files of one name: pytest imports them by it and collects only the first."""
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        files.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    shared = tuple(" ".join(places) for places in files.values() if len(places) > 1)
    return Bar("names of test files that stand twice", len(shared), 0, shared)


def duplicates() -> Bar:
    """Find code of six lines and more that stands twice; comments and docstrings do not count.

    Raises:
        RuntimeError: pylint failed.
    """
    command = [
        *(sys.executable, "-m", "pylint", "--disable=all", "--enable=duplicate-code"),
        *(f"--min-similarity-lines={SAME_LINES}", "--score=no", "--msg-template={msg}"),
        f"--init-hook={SYNTAX_ONLY}",
        *(str(path) for path in product()),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # Bit 8 says that something was found; 1, 2 and 32 that pylint could not do its work.
    if done.returncode & ~8:
        raise RuntimeError(f"pylint ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    _, *found = done.stdout.split("Similar lines in ")
    name = f"code that stands twice, {SAME_LINES} lines"
    return Bar(name, len(found), 0, tuple(part.strip() for part in found))


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            place = f"{_place(path)}:{node.lineno} {node.name}"
            yield Function(place, last - node.lineno + 1, _parameters(node.args))


def _parameters(arguments: ast.arguments) -> int:
    """How many a caller can give; a starred one counts once, ``self`` and ``cls`` do not."""
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    stars = [star for star in (arguments.vararg, arguments.kwarg) if star]
    return len([name for name in named if name.arg not in ("self", "cls")]) + len(stars)


def _place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _sorted(sized: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(f"{size:>4}  {place}" for size, place in sorted(sized, reverse=True))


if __name__ == "__main__":
    main()
