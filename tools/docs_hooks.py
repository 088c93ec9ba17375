"""What mkdocs is told beyond mkdocs.yml: pages that lie elsewhere in the repository, and names in docstrings.

Cards of checkpoints, the changelog and the page on the examples stay where GitHub, the Hub and the package expect them,
and become pages of the site; links that lead to them lead there. ``:class:`X``` in docstrings becomes a link.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = "src/motion_grpo/checkpoints"
PAGES = {"CHANGELOG.md": "changelog.md", "examples/README.md": "example_recordings.md"}
"""Pages of the repository, and what they are in the site."""
FILES = {"examples/NOTICE": "NOTICE"}
for card in sorted((ROOT / CHECKPOINTS).glob("*/README.md")):
    folder = card.parent
    PAGES[f"{CHECKPOINTS}/{folder.name}/README.md"] = f"cards/{folder.name}/card.md"
    for file in (*folder.rglob("*.png"), folder / "training_config.yaml"):
        FILES[str(file.relative_to(ROOT))] = f"cards/{folder.name}/{file.relative_to(folder)}"
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):<code>(~?)([\w.]+)</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lies elsewhere."""
    for source, place in (PAGES | FILES).items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turns links into the repository, written from docs/, into links within the site."""
    for source, place in (PAGES | FILES).items():
        markdown = markdown.replace(f"](../{source})", f"]({place})")
    return markdown


def on_page_content(html: str, **_: object) -> str:
    """Turns the roles of docstrings into links where the site has what they name."""

    def link(match: re.Match) -> str:
        short = match[2].rpartition(".")[2] if match[1] else match[2]
        return f'<autoref identifier="{match[2]}" optional><code>{short}</code></autoref>'

    return ROLE.sub(link, html)
