"""The plot: requests per second of every server, as a self-contained SVG for light and dark pages."""

from html import escape
from statistics import median

from bench.checkouts import OURS
from bench.results import Figures

WIDTH, LEFT, RIGHT, TOP, BAR, GAP, TITLE = 760, 190, 110, 80, 18, 10, 34
# The card has its own background, so that it is readable on every page.
STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .card { fill: #ffffff; stroke: #d0d7de; }
  .title { font-size: 16px; font-weight: 600; }
  .panel { font-weight: 600; }
  .quiet { fill: #59636e; font-size: 12px; }
  .ours { fill: #ff0d68; }
  .peer { fill: #8c959f; }
  .strong { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .card { fill: #0d1117; stroke: #3d444d; }
    .quiet { fill: #9198a1; }
    .ours { fill: #ff5c97; }
    .peer { fill: #656c76; }
  }
"""


def svg(servers: dict[str, Figures], machine: str, run: str) -> str:
    """Draw two panels: the secret with token verification, and hello without. Below the title, say what was run."""
    panel_height = TITLE + len(servers) * (BAR + GAP)
    height = TOP + 2 * panel_height + 18
    secret = {name: median(figures.secret.rate) for name, figures in servers.items()}
    hello = {name: median(figures.hello.rate) for name, figures in servers.items()}
    most = max(*secret.values(), *hello.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="Requests per second of this service and its peers">',
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        '<text class="title" x="20" y="30">Requests per second, one worker on one core</text>',
        f'<text class="quiet" x="20" y="50">{escape(machine)}</text>',
        f'<text class="quiet" x="20" y="66">{escape(run)}</text>',
        *_panel("GET /tests/secret: 1,000 JWTs in rotation", secret, most, TOP),
        *_panel("GET /tests/hello", hello, most, TOP + panel_height),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(title: str, rates: dict[str, float], most: float, top: int) -> list[str]:
    parts = [f'<text class="panel" x="20" y="{top + 20}">{title}</text>']
    for number, (name, rate) in enumerate(sorted(rates.items(), key=lambda item: -item[1])):
        parts += _bar(name, rate, rate / rates[OURS], rate / most, top + TITLE + number * (BAR + GAP))
    return parts


def _bar(name: str, rate: float, ratio: float, share: float, top: int) -> list[str]:
    length = max(2.0, share * (WIDTH - LEFT - RIGHT - 20))
    ours = name == OURS
    baseline = top + BAR - 4
    label = f"{rate:,.0f}" if ours else f"{rate:,.0f}  ({ratio:.2f}x)"
    return [
        f'<text class="{"strong" if ours else ""}" x="{LEFT - 8}" y="{baseline}" text-anchor="end">{name}</text>',
        f'<rect class="{"ours" if ours else "peer"}" x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="3"/>',
        f'<text class="{"strong" if ours else "quiet"}" x="{LEFT + length + 8:.1f}" y="{baseline}">{label}</text>',
    ]
