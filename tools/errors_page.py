"""Write app/openapi/errors.html, the page at /docs/errors, from docs/errors.md: python -m tools.errors_page."""

from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "docs" / "errors.md"
PAGE = ROOT / "app" / "openapi" / "errors.html"
TEMPLATE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>{title}</title>
    <link rel="icon" href="/docs/favicon-32x32.png">
    <link rel="stylesheet" href="/docs/page.css">
  </head>
  <body>
    <main class="errors">
{content}    </main>
  </body>
</html>
"""


def render() -> str:
    """Return the page."""
    content = MarkdownIt("commonmark", {"html": False}).enable("table").render(SOURCE.read_text())
    return TEMPLATE.replace("{content}", content)


if __name__ == "__main__":
    PAGE.write_text(render())
