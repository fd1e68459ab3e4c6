"""Tables as Go's text/tabwriter lays them out (docker's copy, which counts wide characters as two columns)."""

from __future__ import annotations


def width(text: str) -> int:
    """Columns a text takes on a terminal."""
    if text.isascii():
        return sum(" " <= char < "\x7f" for char in text) if not text.isprintable() else len(text)
    from unicodedata import category, east_asian_width

    columns = 0
    for char in text:
        if category(char) in ("Mn", "Me", "Cc", "Cf"):
            continue
        columns += 2 if east_asian_width(char) in "WF" else 1
    return columns


def tabulate(text: str, *, minimum: int = 10, padding: int = 3) -> str:
    """Align the tab-terminated cells of `text`: at least `minimum` columns wide, `padding` blanks after the longest of a column.

    A column is a run of adjacent lines that all have that cell; what follows a line's last tab is no cell.
    """
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[list[int]] = [[] for _ in lines]
    cells = [[width(cell) for cell in line] for line in lines]
    for column in range(max(len(line) for line in lines) - 1):
        start = 0
        while start < len(lines):
            if column >= len(lines[start]) - 1:
                start += 1
                continue
            end = start
            widest = minimum
            while end < len(lines) and column < len(lines[end]) - 1:
                widest = max(widest, cells[end][column] + padding)
                end += 1
            for at in range(start, end):
                widths[at].append(widest)
            start = end
    out = []
    for line, columns, sizes in zip(lines, widths, cells, strict=True):
        out.append("".join(cell + " " * (columns[at] - sizes[at]) if at < len(line) - 1 else cell for at, cell in enumerate(line)))
    return "\n".join(out)


def ellipsis(text: str, limit: int) -> str:
    """The text cut to so many columns, the last being `…` (formatter.Ellipsis)."""
    if limit <= 0:
        return ""
    if limit == 1:
        return text[:1]
    if text.isascii():
        return text if len(text) <= limit else text[: limit - 1] + "…"
    from unicodedata import east_asian_width

    total = 0
    ends = []
    for char in text:
        total += 2 if east_asian_width(char) in "WF" else 1
        ends.append(total)
    if total <= limit:
        return text
    for at, end in enumerate(ends[:-1]):
        if end <= limit - 1 < ends[at + 1]:
            return text[: at + 1] + "…"
    return text
