"""Rows as prefix trees, packed in lines: what rows have in common is computed once.

Rows on the same images start with the same tokens, and so do the chosen and the rejected
answer to one question. All of them are merged into a tree whose nodes are tokens; a token sees
its ancestors and itself, and its position is its depth. So every path from the root computes
what the row alone would: a test compares them, and another perturbs a neighbour.

Trees are laid end to end in lines as long as the longest tree, and don't see each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_ops.models.blocks import Grid
from vlm_ops.records import ImageRef
from vlm_ops.training.engine.encode import EncodedRow

_MULTIPLE = 8
"""Of tokens in a line and of scored columns: few shapes, and sizes that tensor cores like."""


@dataclass(frozen=True)
class Forest:
    """Packed rows.

    Attributes:
        input_ids: Tokens, right-padded, (lines, length), int64.
        position_ids: Depth of each token in its tree, (lines, length), int64; with places in the
            rows and columns of images (:func:`positions`), (3, lines, length).
        attention_mask: False at padding, (lines, length), bool.
        visible: Which token sees which, (lines, 1, length, length), bool.
        keep: Columns of each line from which something is predicted, filled up with 0,
            (lines, slots), int64.
        scored: Flat index (line · slots + slot) from which each target is predicted, (n,).
        targets: Supervised tokens, (n,), int64.
        completion: Number of the completion each target belongs to, counted over rows, (n,).
        images: In the order of their tokens.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    visible: torch.Tensor
    keep: torch.Tensor
    scored: torch.Tensor
    targets: torch.Tensor
    completion: torch.Tensor
    images: list[ImageRef]


@dataclass
class _Tree:
    images: list[ImageRef] = field(default_factory=list)
    grids: dict[int, Grid] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    supervised: list[tuple[int, int, int]] = field(default_factory=list)

    def grow(self, row: EncodedRow, first: int) -> None:
        """Add a row; its completions are numbered from ``first``."""
        end = -1
        begins = dict(zip(row.blocks, row.images, strict=True))
        grids = dict(zip(row.blocks, row.grids, strict=False))
        for place, token in enumerate(row.prompt):
            known = len(self.tokens)
            end = self._step(end, token)
            # The same image after other words has tokens of its own.
            if place in begins and end == known:
                self.images.append(begins[place])
                self.grids |= {end: grids[place]} if grids else {}
        for number, completion in enumerate(row.completions, start=first):
            node = end
            for token in completion:
                self.supervised.append((node, token, number))
                node = self._step(node, token)

    def _step(self, parent: int, token: int) -> int:
        node = self.children.setdefault((parent, token), len(self.tokens))
        if node == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(parent)
        return node


def tree_key(row: EncodedRow) -> tuple[str, ...]:
    """What rows must share to stand in one tree: the content of all their images, in order.

    A row without an image stands alone: it shares nothing that would be worth a longer line.
    """
    return tuple(image.sha256 for image in row.images) or ("text", row.id)


def by_tree(rows: Sequence[EncodedRow]) -> list[list[int]]:
    """Return the numbers of the rows that may stand in one tree, for each tree."""
    trees: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        trees.setdefault(tree_key(row), []).append(number)
    return list(trees.values())


def longest_line(rows: Sequence[EncodedRow], at_once: int) -> int:
    """Return the most tokens of a line, whichever rows meet in a forward pass.

    Args:
        rows: All rows.
        at_once: Rows in a forward pass.
    """
    longest = 0
    for numbers in by_tree(rows):
        tree = _Tree()
        for row in sorted((rows[n] for n in numbers), key=lambda row: -row.length)[:at_once]:
            tree.grow(row, 0)
        longest = max(longest, len(tree.tokens))
    return longest


def pack(rows: Sequence[EncodedRow], pad: int) -> Forest:
    """Merge and pack rows.

    Args:
        rows: Of one forward pass.
        pad: Padding token.
    """
    trees: dict[tuple[str, ...], _Tree] = {}
    completions = 0
    for row in rows:
        tree = trees.setdefault(tree_key(row), _Tree())
        tree.grow(row, completions)
        completions += len(row.completions)
    lines = _fill_lines(list(trees.values()))
    length = _rounded(max(sum(len(tree.tokens) for tree in line) for line in lines))
    ids = np.full((len(lines), length), pad, dtype=np.int64)
    places = np.zeros((3, len(lines), length), dtype=np.int64)
    real = np.zeros((len(lines), length), dtype=bool)
    # Padding sees itself: a token that saw nothing would compute NaN.
    visible = np.tile(np.eye(length, dtype=bool), (len(lines), 1, 1))
    supervised: list[tuple[int, int, int, int]] = []
    for number, line in enumerate(lines):
        start = 0
        for tree in line:
            end = start + len(tree.tokens)
            ids[number, start:end] = tree.tokens
            real[number, start:end] = True
            seen = _ancestors(tree.parents)
            visible[number, start:end, start:end] = seen
            places[:, number, start:end] = positions(seen, tree.grids)
            supervised += [(number, start + node, token, c) for node, token, c in tree.supervised]
            start = end
    keep, scored = _slots([(line, column) for line, column, _, _ in supervised], len(lines))
    targets, completion = torch.tensor(supervised)[:, 2:].unbind(dim=1)
    return Forest(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(places if any(row.grids for row in rows) else places[0]),
        attention_mask=torch.from_numpy(real),
        visible=torch.from_numpy(visible)[:, None],
        keep=keep,
        scored=scored,
        targets=targets,
        completion=completion,
        images=[image for line in lines for tree in line for image in tree.images],
    )


def positions(
    seen: NDArray[np.bool_], grids: Mapping[int, Grid] | None = None
) -> NDArray[np.int64]:
    """Return each token's position in time, row and column.

    All three are how many tokens stand before it on its path. With grids (M-RoPE) an image's tokens
    have one time, and rows and columns counted from it; what follows goes on after the larger of
    both. Source: arXiv:2409.12191, section 2.1; ``Qwen2VLModel.get_rope_index`` of transformers 5.

    Args:
        seen: Which token sees which in one tree, (length, length).
        grids: Rows and columns of each image, by the number of its first token.

    Returns:
        (3, length).
    """
    steps = np.ones(len(seen), dtype=np.int64)
    for first, grid in (grids or {}).items():
        steps[first : first + math.prod(grid)] = 0
        steps[first] = max(grid)
    found = np.tile(seen.astype(np.int64) @ steps - 1, (3, 1))
    for first, grid in (grids or {}).items():
        tokens = slice(first, first + math.prod(grid))
        found[:, tokens] += 1 - max(grid)
        found[1:, tokens] += np.indices(grid).reshape(2, -1)
    return found


def _ancestors(parents: Sequence[int]) -> NDArray[np.bool_]:
    seen = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            seen[node, : parent + 1] = seen[parent, : parent + 1]
    return seen


def _rounded(size: int) -> int:
    """Round up: oneDNN keeps a kernel, and memory for it, of every shape it has met."""
    return -(-size // _MULTIPLE) * _MULTIPLE


def _slots(places: list[tuple[int, int]], lines: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Number the distinct columns of each line, and say which slot each place has."""
    slots: list[dict[int, int]] = [{} for _ in range(lines)]
    found = [(line, slots[line].setdefault(column, len(slots[line]))) for line, column in places]
    width = _rounded(max(map(len, slots)))
    keep = torch.tensor([[*columns, *[0] * (width - len(columns))] for columns in slots])
    return keep, torch.tensor([line * width + slot for line, slot in found])


def _fill_lines(trees: list[_Tree]) -> list[list[_Tree]]:
    """Put trees into lines as long as the longest tree, first fit by falling length."""
    trees = sorted(trees, key=lambda tree: -len(tree.tokens))
    room: list[int] = []
    lines: list[list[_Tree]] = []
    for tree in trees:
        size = len(tree.tokens)
        line = next((number for number, left in enumerate(room) if left >= size), None)
        if line is None:
            line = len(lines)
            lines.append([])
            room.append(len(trees[0].tokens))
        lines[line].append(tree)
        room[line] -= size
    return lines
