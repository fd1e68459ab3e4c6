"""./dev bench: Sampan beside a dockerd, row by row, samples in turn; prints a table, writes every sample to docs/bench/."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import build_rows, image_rows, network_rows, registry_rows, rows
from bench.rows import Row
from bench.target import BadResult, Target
from tests.support.engine import CLI, START, Engine, own_number

ROWS = (*rows.ROWS, *image_rows.ROWS, *registry_rows.ROWS, *build_rows.ROWS, *network_rows.ROWS)
ROOT = Path(__file__).resolve().parent.parent
Samples = dict[str, list[list[float]]]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help="only these rows")
    parser.add_argument("--peer", choices=["20", "28"], default="20", help="the dockerd to compare with (default 20)")
    parser.add_argument("--peer-url", help="compare with the dockerd of bench/peers that runs already, at this unix:// address")
    parser.add_argument("--runs", type=int, default=5, help="samples of each row (default 5)")
    parser.add_argument("--budget", type=float, default=90, help="seconds after which a row takes no further samples (default 90)")
    parser.add_argument("--storage-driver", help="of sampand (default: what works best here)")
    parser.add_argument("--list", action="store_true", help="list the rows with their goals")
    parser.add_argument("--json", help="where to write the samples (default docs/bench/DATE-PEER.json)")
    return parser.parse_args()


def show(name: str, value: float | None) -> str:
    """A figure with its unit."""
    if value is None:
        return "-"
    if name.startswith("mem_"):
        return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms" if value >= 0.01 else f"{value * 1e6:.0f} us"


def measure(row: type[Row], targets: list[Target], runs: int, budget: float) -> tuple[Samples, list[str]]:
    """Samples in turn, the first of each engine discarded as a warm-up; and what went wrong, by engine."""
    begin = time.monotonic()
    samples: Samples = {name: [[] for _ in targets] for name in row.goals}
    problems = ["" for _ in targets]
    made: list[Row | None] = [None for _ in targets]
    for turn in range(runs + 1):
        if turn > 1 and time.monotonic() - begin > budget:
            break
        for index, target in enumerate(targets):
            if problems[index] or (row.needs_start and target.command is None):
                continue
            try:
                current = made[index] = made[index] or row(target)
                os.sync()  # what the other one has left to be written is not this one's to wait for
                for name, value in current.sample().items():
                    if turn:
                        samples[name][index].append(value)
            except Exception as exc:  # whatever an engine does wrong is a result
                problems[index] = f"{type(exc).__name__}: {exc}"
    for target, current in zip(targets, made, strict=True):
        try:
            if current is not None:
                current.close()
            target.clean()
        except Exception as exc:
            print(f"  cleaning up on {target.name}: {exc}", file=sys.stderr)
    return samples, problems


def table(row: type[Row], samples: Samples, problems: list[str], targets: list[Target]) -> dict[str, Any]:
    """Print a row's lines; returns them for the JSON file."""
    result = {}
    for name, goal in row.goals.items():
        ours, theirs = (statistics.median(values) if values else None for values in samples[name])
        ratio = ours / theirs if ours is not None and theirs else None
        if name == "sampan_ps":  # one engine, two clients
            base = samples["cli_ps"][0]
            theirs = statistics.median(base) if base else None
            ratio = ours / theirs if ours is not None and theirs else None
        met = "" if ratio is None else "yes" if ratio <= goal else "no"
        shown = f"{ratio:.2f}" if ratio else "-"
        print(f"| {name:15} | {show(name, ours):>9} | {show(name, theirs):>9} | {shown:>5} | {goal:>5} | {met:3} |", flush=True)
        result[name] = {"samples": dict(zip((t.name for t in targets), samples[name], strict=True)), "ratio": ratio, "goal": goal}
    for target, problem in zip(targets, problems, strict=True):
        if problem:
            print(f"  {target.name}: {problem[:200]}", flush=True)
    return result | {"problems": problems}


def our_target(engine: Engine) -> Target:
    """A sampand of our own, with roots and a bridge of its own."""
    target = Target("sampan", engine.url, [*START, *engine.flags], str(engine.root))
    target.builder = (*CLI, "build")
    return target


def peer_target(options: argparse.Namespace) -> Target:
    """The dockerd: one that runs, or one that is fetched and started here."""
    script = str(ROOT / "bench/peers")
    name, url, command = "peer", options.peer_url, None
    if not url:
        subprocess.run([script, "fetch", options.peer], check=True)
        subprocess.run([script, "down", options.peer], check=True)
        url = subprocess.run([script, "url", options.peer], capture_output=True, text=True, check=True).stdout.strip()
        name, command = f"dockerd{options.peer}", [script, "exec", options.peer]
    target = Target(name, url, command, f"docker-{options.peer}", f"sampan-peer{options.peer}")
    if options.peer == "28":
        target.builder = (script, "client", "28", "buildx", "build")
    return target


def main() -> int:
    """Run the benchmark; 1 when an engine failed a row."""
    options = parse()
    if options.list:
        for row in ROWS:
            print("\n".join(f"{name:16} goal {goal}" for name, goal in row.goals.items()))
        return 0
    chosen = [row for row in ROWS if not options.rows or set(options.rows) & set(row.goals)]
    if not chosen:
        print(f"no such row: {' '.join(options.rows)} (./dev bench --list)", file=sys.stderr)
        return 2
    flags = [f"--storage-driver={options.storage_driver}"] if options.storage_driver else []
    locks = ExitStack()
    engine = Engine(Path(tempfile.mkdtemp(prefix="sampan-bench-", dir="/var/tmp")), own_number(locks), flags)
    targets = [our_target(engine), peer_target(options)]
    tables: dict[str, Any] = {}
    try:
        versions: list[str] = []
        drivers: list[str] = []
        for target in targets:
            target.boot()
            versions.append(target.call("GET", "/version")["Version"])
            drivers.append(target.call("GET", "/info")["Driver"])
            target.load_image()
        peer = targets[1].name
        print(f"sampan ({drivers[0]}) beside {peer} ({versions[1]}, {drivers[1]}), {options.runs} samples each, ", end="")
        print(f"{os.cpu_count()} cores, kernel {platform.release()}\n")
        print(f"| {'row':15} | {'sampan':>9} | {peer:>9} | ratio |  goal | met |\n|---|---|---|---|---|---|")
        for row in chosen:
            samples, problems = measure(row, targets, options.runs, options.budget)
            tables |= {row.__name__: table(row, samples, problems, targets)}
        machine = {"kernel": platform.release(), "cores": os.cpu_count()}
        record = {"peer": versions[1], "drivers": drivers, "runs": options.runs, **machine, "rows": tables}
        path = Path(options.json or ROOT / f"docs/bench/{time.strftime('%Y-%m-%d')}-{targets[1].name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"\nall samples: {path}")
    finally:
        close(engine, targets)
        locks.close()
    return 1 if any(any(row["problems"]) for row in tables.values()) else 0


def close(engine: Engine, targets: list[Target]) -> None:
    """Leave both machines' worth of things as they were."""
    for target in targets:
        try:
            target.clean()
            target.call("DELETE", f"/images/{target.image}?force=1", ok=(200, 404))
        except (OSError, BadResult) as exc:
            print(f"  cleaning up on {target.name}: {exc}", file=sys.stderr)
        if target.command:
            target.halt()
            target.log.unlink(missing_ok=True)
    engine.teardown()
    subprocess.run(["rm", "-rf", str(engine.root)], check=True)


if __name__ == "__main__":
    sys.exit(main())
