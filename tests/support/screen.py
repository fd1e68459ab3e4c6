"""What a terminal shows of what a program writes: as much of one as progress needs."""

import re
from unicodedata import category, east_asian_width

_PIECES = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\[\?7([lh])|([\r\n])|([^\x1b\r\n]+)")


def screen(text: str, columns: int) -> list[str]:
    """The lines after all was written, without blanks at their ends. Raises ValueError for what it does not know."""
    shown = Display(columns)
    shown.write(text)
    return shown.lines


class _Row:
    def __init__(self) -> None:
        self.cells: list[str] = []
        self.goes_on = False
        """In the next row: it was too long."""


class Display:
    """A terminal that scrolls and keeps what it has scrolled by; a new width breaks its long lines anew, as most do."""

    def __init__(self, columns: int, rows: int = 0) -> None:
        """rows: 0 for as many as there are."""
        self._columns, self._height = columns, rows
        self._rows = [_Row()]
        self._row = self._column = 0
        self.wraps = True
        """Lines that are too long go on in the next row."""

    @property
    def lines(self) -> list[str]:
        """All rows, to the last that has something or to the cursor's; those that have gone by too."""
        texts = ["".join(row.cells).rstrip() for row in self._rows]
        while len(texts) > self._row + 1 and not texts[-1]:
            texts.pop()
        return texts

    @property
    def _top(self) -> int:
        return max(0, len(self._rows) - self._height) if self._height else 0

    def resize(self, columns: int, rows: int) -> None:
        """The window has another size."""
        lines: list[list[str]] = []
        place = (0, 0)
        joined: list[str] = []
        for number, row in enumerate(self._rows[: len(self.lines)]):
            if number == self._row:
                place = (len(lines), len(joined) + self._column)
            joined += row.cells
            if not row.goes_on:
                lines.append(joined)
                joined = []
        self._rows, self._columns, self._height = [], columns, rows
        for number, line in enumerate([*lines, *([joined] if joined else [])]):
            if number == place[0]:
                self._row, self._column = len(self._rows) + place[1] // columns, place[1] % columns
            for start in range(0, max(len(line), 1), columns):
                self._rows.append(_Row())
                self._rows[-1].cells = line[start : start + columns]
                self._rows[-1].goes_on = start + columns < len(line)
        self._to(self._row)

    def _to(self, row: int) -> None:
        self._row = row
        self._rows += [_Row() for _ in range(len(self._rows), row + 1)]

    def write(self, text: str) -> None:
        """More of what the program writes. Raises ValueError for what it does not know."""
        end = 0
        for piece in _PIECES.finditer(text):
            if piece.start() != end:
                raise ValueError(f"unknown: {text[end : piece.start()]!r}")
            end = piece.end()
            number, command, wraps, control, plain = piece.groups()
            if control == "\n":
                self._to(self._row + 1)
            elif control:
                self._column = 0
            elif command is not None:
                self._command(command, number)
            elif wraps:
                self.wraps = wraps == "h"
            for char in plain or "":
                self._put(char)
        if end != len(text):
            raise ValueError(f"unknown: {text[end:]!r}")

    def _command(self, command: str, number: str) -> None:
        here = self._rows[self._row]
        if command == "A":
            self._to(max(self._top, self._row - int(number or 1)))
        elif command == "B":
            bottom = self._top + self._height - 1 if self._height else self._row + int(number or 1)
            self._to(min(bottom, self._row + int(number or 1)))
        elif command == "K" and number == "2":
            self._rows[self._row] = _Row()
        elif command in ("K", "J") and number in ("", "0"):
            del here.cells[self._column :]
            here.goes_on = False
            for row in range(self._row + 1, len(self._rows) if command == "J" else 0):
                self._rows[row] = _Row()
        elif command != "m":
            raise ValueError(f"unknown: {number}{command}")

    def _put(self, char: str) -> None:
        width = 0 if category(char) in ("Mn", "Me", "Cf") else 2 if east_asian_width(char) in "WF" else 1
        if not width:
            return
        if self._column + width > self._columns:
            if self.wraps:
                self._rows[self._row].goes_on = True
                self._to(self._row + 1)
                self._column = 0
            else:
                self._column = max(0, self._columns - width)
        cells = self._rows[self._row].cells
        cells += " " * (self._column - len(cells))
        cells[self._column : self._column + width] = [char, *[""] * (width - 1)]
        self._column += width
