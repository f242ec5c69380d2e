"""The results as Markdown tables that are also readable in a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from bench.checkouts import OURS
from bench.results import Figures, Ratio, Results, Row

MEGABYTE = 1_000_000
MIN_CORE_SHARE = 0.9  # a server under load gets at least this share of its core on an otherwise idle machine
METHOD = """\
Method: each server runs alone on core 0, with one worker and no access log, and is restarted for each visit. The load \
(`wrk -t1 -c64`) and MongoDB run on core 1. Each round visits all servers in turn. A ratio is the median of the ratios \
of all rounds, with the lowest and the highest in brackets. Before the load on `/tests/secret`, each server must \
respond to `/tests/hello`, accept 1,000 tokens, and reject a missing and a tampered token. CPU us are microseconds of \
CPU time of all processes of the server, per request. One unsuccessful response \
fails the run. A missed target does not fail the run; the table only reports it. [bench/README.md](README.md) explains \
each line."""


def markdown(results: Results, scale: str, experiments: Sequence[str]) -> str:
    """Return all results as Markdown."""
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    parts = [f"# Benchmark results: {scale} run, {now}", _table(["setup", ""], list(map(list, results.setup.items())))]
    if scale == "quick":
        parts.append("A quick run has fewer rounds, shorter bursts and less data. It is a rough check, not a result.")
    if results.rows:
        header = ["measurement", "ratio", "lowest to highest", "target", "reached", "details"]
        parts.append(_table(header, [_row(row) for row in results.rows]))
    if results.servers:
        parts.append(_servers(results.servers, results.missing) + _disturbance(results.servers))
    parts.append(METHOD)
    parts.append(f"Experiments: {', '.join(experiments)}.")
    return "\n\n".join(parts) + "\n"


def _row(row: Row) -> list[str]:
    if row.ratio is None:
        return [row.what, "", "", "", "", row.detail]
    target = "none" if row.target is None else f"{row.bound.value} {row.target:.2f}"
    reached = {True: "yes", False: "**no**", None: ""}[row.reached]
    return [row.what, f"**{row.ratio.median:.2f}**", _spread(row.ratio), target, reached, row.detail]


def _spread(ratio: Ratio) -> str:
    return f"({ratio.low:.2f} to {ratio.high:.2f})"


def _servers(servers: dict[str, Figures], missing: Sequence[str]) -> str:
    header = [
        "server",
        "hello/s",
        "/ this service",
        "secret/s",
        "/ this service",
        "CPU us per hello",
        "CPU us per secret",
        "core used",
        "start to ready, s",
        "worker RSS, MB",
        "total PSS, MB",
    ]
    ours = servers[OURS]
    rows = [
        [
            name,
            f"{median(one.hello.rate):,.0f}",
            f"{Ratio.of(one.hello.rate, ours.hello.rate).median:.2f}",
            f"{median(one.secret.rate):,.0f}",
            f"{Ratio.of(one.secret.rate, ours.secret.rate).median:.2f}",
            f"{median(one.hello.cpu):.1f}",
            f"{median(one.secret.cpu):.1f}",
            f"{median(one.core):.0%}",
            f"{median(one.start_seconds):.2f}",
            f"{median(one.rss_bytes) / MEGABYTE:.0f}",
            f"{median(one.pss_bytes) / MEGABYTE:.0f}",
        ]
        for name, one in servers.items()
    ]
    rows += [[name, "not measured", *[""] * (len(header) - 2)] for name in missing]
    return _table(header, rows, numbers=True)


def _disturbance(servers: dict[str, Figures]) -> str:
    """Return a warning if a server could not use its core, which reduces its requests per second."""
    least, name = min((share, name) for name, one in servers.items() for share in one.core)
    if least >= MIN_CORE_SHARE:
        return ""
    return (
        f"\n\n**In one visit, {name} used only {least:.0%} of its core:** other processes ran on this machine, or wrk "
        "could not send more. Requests per second and their ratios are therefore unreliable. CPU time per request is "
        "less affected."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    widths = [max(3, *(len(line[column]) for line in (header, *rows))) for column in range(len(header))]
    rule = [
        "-" * width if not numbers or column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths)
    ]
    lines = [header, rule, *rows]
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    )
