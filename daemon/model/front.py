"""Where the rows of a batch stand while a stack of layers works on them, and in which order it does.

At turn t layer l is at wave t - l. Rows stand on a board in blocks: turn t reads block t and writes block t + 1, whole
tiles each, so a row goes on from the same place of the block before. Wave w of layer l is therefore read from block
w + l; the start states of layer l stand in block l.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import neg
from typing import NamedTuple

import numpy as np

from daemon.core.step import Index, Waves
from daemon.model.grid import tiles_of

#: Tiles that are worked on together, over all layers: the gates of so many stay in the second cache, and the calls of
#: numpy no longer count.
TOGETHER = 32


class Run(NamedTuple):
    """The same work several times, each time so many tiles further: turns of one width, or shares of a wide one."""

    #: First tile that is read, first tile that is written.
    source: int
    target: int
    #: Rows at work each time, from the first one of a tile on.
    rows: int
    times: int
    #: The layers at work: first, and last (exclusive).
    first: int
    last: int


class Front:
    """The blocks of a batch.

    Parameters
    ----------
    layers : number of layers of the stack
    thin : numbers of rows, the largest first: a wave of up to so many is worked on as so many, a wider one in tiles
    """

    def __init__(self, waves: Waves, layers: int, tile_rows: int, thin: Sequence[int]) -> None:
        self._layers = layers
        self._tile_rows = tile_rows
        bounds = np.array(waves.bounds)
        sizes = bounds[1:] - bounds[:-1]
        tiles = tiles_of(sizes, tile_rows)
        at_work = tiles * tile_rows
        for rows in thin:
            at_work[sizes <= rows] = rows
        #: Rows of each wave as they are worked on.
        self._rows: list[int] = at_work.tolist()
        # The widest wave that is written to a block is the top layer's; before its first one stand start states.
        widths = tiles.tolist()
        #: First tile of each block; the last entry is the end.
        self._edges = [0, *accumulate(widths[:1] * layers + widths)]
        #: First row of each block.
        self._blocks = np.array(self._edges) * tile_rows
        #: The wave of each row, and its place there.
        self._wave = np.repeat(np.arange(len(sizes)), sizes)
        self._place = np.arange(bounds[-1]) - bounds[self._wave]

    @property
    def rows(self) -> int:
        """Rows of the board in use."""
        return int(self._blocks[-1])

    def start(self, layer: int) -> int:
        """Return the first row of the block that holds the start states of a layer."""
        return int(self._blocks[layer])

    def before(self, layer: int) -> Index:
        """Return for each row of the batch where the state of a layer before it stands."""
        before: Index = self._blocks[layer:][self._wave] + self._place
        return before

    def after(self, layer: int) -> Index:
        """Return for each row of the batch where the state of a layer after it stands."""
        return self.before(layer + 1)

    def runs(self) -> Iterator[Run]:
        """Yield what to compute, in order: in each turn the layers whose waves are of one width together."""
        turn, waves = 0, len(self._rows)
        while turn < waves + self._layers - 1:
            first, last = max(0, turn - waves + 1), min(self._layers, turn + 1)
            turns = 1
            while first < last:
                rows, end = self._rows[turn - first], first + 1
                while end < last and self._rows[turn - end] == rows:
                    end += 1
                if end - first == self._layers:
                    turns = self._like(turn)
                yield from self._shares(turn, turns, rows, first, end)
                first = end
            turn += turns

    def _like(self, turn: int) -> int:
        """Return how many turns from this one on are the same work, of all layers, each a block further."""
        rows = self._rows[turn]
        if self._edges[turn + 1] - self._edges[turn] != self._tiles(rows) or self._tiles(rows) > self._most(
            self._layers
        ):
            return 1
        return bisect_right(self._rows, -rows, key=neg) - turn  # waves only become thinner

    def _shares(self, turn: int, turns: int, rows: int, first: int, last: int) -> Iterator[Run]:
        """Yield a turn, or several that are alike; a wide one in shares, which stand behind one another as turns do."""
        source, target = self._edges[turn], self._edges[turn + 1]
        most = self._most(last - first)
        if self._tiles(rows) <= most:
            yield Run(source, target, rows, turns, first, last)
            return
        times, left = divmod(self._tiles(rows), most)
        yield Run(source, target, most * self._tile_rows, times, first, last)
        if left:
            done = times * most
            yield Run(source + done, target + done, left * self._tile_rows, 1, first, last)

    def _tiles(self, rows: int) -> int:
        return tiles_of(rows, self._tile_rows)

    @staticmethod
    def _most(layers: int) -> int:
        return TOGETHER // layers
