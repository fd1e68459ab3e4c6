"""What a terminal shows of what a program writes: as much of one as progress needs."""

import re

_PIECES = re.compile(r"\x1b\[(\d*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def screen(text: str, columns: int) -> list[str]:
    """The lines after all was written, without blanks at their ends. Raises ValueError for what it does not know."""
    rows: list[list[str]] = [[]]
    row = column = end = 0
    for piece in _PIECES.finditer(text):
        if piece.start() != end:
            raise ValueError(f"unknown: {text[end : piece.start()]!r}")
        end = piece.end()
        number, command, control, plain = piece.groups()
        if control == "\n":
            row += 1
        elif control:
            column = 0
        elif command in ("A", "B"):
            row = max(0, row + int(number or 1) * (1 if command == "B" else -1))
        elif command == "K" and number == "2":
            rows[row] = []
        elif command == "K" and number in ("", "0"):
            del rows[row][column:]
        elif command is not None:
            raise ValueError(f"unknown: {piece.group()!r}")
        rows += [[] for _ in range(len(rows), row + 1)]
        for char in plain or "":
            if column == columns:
                row, column = row + 1, 0
                rows += [[] for _ in range(len(rows), row + 1)]
            rows[row] += " " * (column - len(rows[row]))
            rows[row][column : column + 1] = [char]
            column += 1
    if end != len(text):
        raise ValueError(f"unknown: {text[end:]!r}")
    return ["".join(line).rstrip() for line in rows]
