"""sampan stats."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.formatter import FORMAT_HELP
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context
    from sampan.cli.watching import Rows

SPEC = Command(
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    complete="containers:running",
    aliases=("container stats", "stats"),
    flags=(
        Flag("all", "a", "bool", False, "Show all containers (default shows just running)"),
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("no-stream", "", "bool", False, "Disable streaming stats and only pull the first result"),
        Flag("no-trunc", "", "bool", False, "Do not truncate output"),
    ),
)
_SECONDS = 0.5


def run(ctx: Context, args: Parsed) -> int:
    """Print what containers use, again and again unless once is asked for."""
    import time

    from sampan.cli.watching import EOF, UNEXPECTED_EOF, Rows

    live = not args.bool("no-stream")
    rows = Rows(ctx, all=args.bool("all"), stream=live)
    if args.args:
        _add_named(rows, args.args)
    else:
        rows.add_all()
        rows.wait()
    layout = args.str("format") or str(ctx.config.get("statsFormat") or "table")
    while True:
        text = _table(rows, layout, trunc=not args.bool("no-trunc"))
        sys.stdout.write(_frame(text) if live else text)
        sys.stdout.flush()
        if not live or rows.ended == UNEXPECTED_EOF:
            return 0
        if rows.ended is not None:
            raise CliError(rows.ended or EOF)
        time.sleep(_SECONDS)


def _add_named(rows: Rows, names: list[str]) -> None:
    """Raises CliError in the words of all that failed."""
    for name in names:
        rows.add(name)
    rows.wait()
    errors = [row.error for row in rows.now() if row.error]
    if errors:
        raise CliError("\n".join(errors))


def _table(rows: Rows, layout: str, *, trunc: bool) -> str:
    from sampan.cli.format import stats
    from sampan.cli.format.formatter import render

    shown = [stats.Entry(row.container, row.stats, known=row.known, trunc=trunc) for row in rows.now()]
    return render(stats.TABLE if layout == "table" else layout, shown, stats.Entry, stats.HEADER)


def _frame(text: str) -> str:
    """What docker writes for one picture: from the top left corner all of it, and all of it again with what each line had before erased."""
    whole = "\033[H" + text
    return whole + "".join(f"{line} \033[K\n" for line in whole.split("\n")) + "\033[J"
