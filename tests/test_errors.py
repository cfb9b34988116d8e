"""The tree in the docstring is the tree of the classes; errors travel between processes."""

import pickle
import re

import pytest

from vlm_ops import errors

_BRANCH = re.compile(r"^ {4}(?P<lines>[ │├└─]*)(?P<name>\w+)(?: \((?P<builtin>\w+)\))?", re.M)
ALL = [getattr(errors, name) for name in errors.__all__]


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Read the docstring: for each class the one above it, and the builtin it also is."""
    text = (errors.__doc__ or "").split("::\n\n")[1].split("\n\n")[0]
    found: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for branch in _BRANCH.finditer(text):
        depth = len(branch["lines"]) // 4
        path = [*path[:depth], branch["name"]]
        found[branch["name"]] = (path[depth - 1] if depth else None, branch["builtin"])
    return found


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    real = {}
    for kind in ALL:
        bases = [base.__name__ for base in kind.__bases__]
        ours = [name for name in bases if name in errors.__all__]
        others = [name for name in bases if name not in (*errors.__all__, "Exception")]
        real[kind.__name__] = (ours[0] if ours else None, others[0] if others else None)
    assert drawn() == real


def test_every_class_of_the_module_is_public() -> None:
    here = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert here == set(errors.__all__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_to_another_process(kind: type[errors.VlmOpsError]) -> None:
    back = pickle.loads(pickle.dumps(kind("what, where, what to do")))
    assert type(back) is kind
    assert str(back) == "what, where, what to do"
