"""The table, as Markdown that is also readable in a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from bench import machine
from bench.contenders import OURS, versions
from bench.results import Figures, Ratio, Results, Row

MEGABYTE = 1_000_000
CORE_IS_OWN = 0.9  # the share of a core that a server under load gets if nobody else wants it
METHOD = """\
How it was measured: every server alone on core 0, started anew for each visit, one worker, no access log; the load \
(`wrk -t1 -c64`) and MongoDB on core 1. The servers are visited in turn, round after round. A ratio is the median of \
the rounds' ratios, with the lowest and highest in brackets. Before a server is asked for the secret under load, it \
must greet everyone, greet 1,000 token holders, and refuse a missing and a tampered token; one answer without success \
fails the run. \
Nothing here is an assertion: the table only reports. [bench/README.md](README.md) says what each line means."""


def markdown(results: Results, scale: str, experiments: Sequence[str]) -> str:
    """Return everything that was measured."""
    parts = [f"# Measured: {scale} run\n\n{_circumstances()}"]
    if scale == "quick":
        parts.append("A quick run: few rounds, short bursts, less data. Good for a look, not for a claim.")
    if results.rows:
        header = ["", "measured", "", "target", "reached", "figures"]
        parts.append(_table(header, [_row(row) for row in results.rows]))
    if results.servers:
        parts.append(_servers(results.servers))
    parts.append(METHOD)
    parts.append(f"Experiments: {', '.join(experiments)}.")
    return "\n\n".join(parts) + "\n"


def _circumstances() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"{now}, {machine.describe()}.\n{versions()}."


def _row(row: Row) -> list[str]:
    if row.ratio is None:
        return [row.what, "", "", "", "", row.detail]
    target = "reported" if row.target is None else f"{row.wanted.value} {row.target:.2f}"
    reached = {True: "yes", False: "**no**", None: ""}[row.reached]
    return [row.what, f"**{row.ratio.median:.2f}**", _spread(row.ratio), target, reached, row.detail]


def _spread(ratio: Ratio) -> str:
    return f"({ratio.low:.2f} to {ratio.high:.2f})"


def _servers(servers: dict[str, Figures]) -> str:
    header = [
        "server",
        "hello/s",
        "/ ours",
        "secret/s",
        "/ ours",
        "hello, us of CPU",
        "secret, us of CPU",
        "core used",
        "start to ready, s",
        "worker RSS, MB",
        "all PSS, MB",
    ]
    ours = servers[OURS]
    rows = [
        [
            name,
            f"{median(one.hello):,.0f}",
            f"{Ratio.of(one.hello, ours.hello).median:.2f}",
            f"{median(one.secret):,.0f}",
            f"{Ratio.of(one.secret, ours.secret).median:.2f}",
            f"{median(one.hello_cpu):.1f}",
            f"{median(one.secret_cpu):.1f}",
            f"{median(one.core):.0%}",
            f"{median(one.start_seconds):.2f}",
            f"{median(one.rss_bytes) / MEGABYTE:.0f}",
            f"{median(one.pss_bytes) / MEGABYTE:.0f}",
        ]
        for name, one in servers.items()
    ]
    return _table(header, rows, numbers=True) + _quiet(servers)


def _quiet(servers: dict[str, Figures]) -> str:
    """Warn if a server did not get its core: then its requests per second say more about the neighbours."""
    least = min(share for one in servers.values() for share in one.core)
    if least >= CORE_IS_OWN:
        return ""
    return (
        f"\n\n**The machine was not quiet: once a server got only {least:.0%} of its core.** Requests per second and "
        "their ratios are then doubtful; processor time per request is less so."
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
