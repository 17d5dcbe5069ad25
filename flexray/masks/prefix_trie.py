"""The trie of a question's paraphrases: what begins alike is one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TrieNode(NamedTuple):
    """Tokens that the same paraphrases share. Paraphrases are counted in lexicographic order."""

    first: int  # of the paraphrases that share it, whose texts have its tokens at [begin, end)
    begin: int
    end: int
    last: int  # of the paraphrases that share it


def prefix_trie(texts: Sequence[tuple[int, ...]]) -> tuple[list[int], list[TrieNode]]:
    """The paraphrases' order, by their indices, and the nodes depth first.

    The paraphrases that share a node stand side by side. Of two nodes these ranges are nested or disjoint,
    and the outer node comes first.

    >>> order, nodes = prefix_trie([(1, 2, 3), (4,), (1, 2)])
    >>> order
    [2, 0, 1]
    >>> [tuple(node) for node in nodes]
    [(0, 0, 2, 1), (1, 2, 3, 1), (2, 0, 1, 2)]
    """
    order = sorted(range(len(texts)), key=texts.__getitem__)
    nodes: list[TrieNode] = []
    path: list[tuple[int, int, int]] = []  # first, begin and end of the nodes that the last text is in
    before: tuple[int, ...] = ()
    for number, index in enumerate(order):
        text = texts[index]
        same = _num_equal(before, text)
        while path and path[-1][2] > same:  # all of a node ends here, or what lies behind `same`
            first, begin, end = path.pop()
            nodes.append(TrieNode(first, max(begin, same), end, number - 1))
            if begin < same:
                path.append((first, begin, same))
        if same < len(text):
            path.append((number, same, len(text)))
        before = text
    nodes += [TrieNode(*node, len(order) - 1) for node in path]
    nodes.sort()
    return order, nodes


def _num_equal(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many tokens two texts begin with alike."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
