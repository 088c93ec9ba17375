"""Makes the folder of a Space of the Hub: the page of pipelines/app.py, its card, its requirements, the examples.

    python tools/build_space.py build/space
    hf upload me/ego-motion build/space --repo-type space

The Space installs motion-grpo as it was released; ``--package`` names another source (a URL that pip takes).
"""

import argparse
import shutil
from pathlib import Path

import gradio
from motion_grpo.cli.app import EXAMPLES

import motion_grpo
from motion_grpo.files import write_text

ROOT = Path(__file__).resolve().parents[1]
APP = '''"""The page; everything it does is in the package."""

from pathlib import Path

from motion_grpo.cli.app import serve

serve(Path(__file__).parent / "examples", 7860, host="0.0.0.0", open_browser=False)
'''


def build(folder: Path, package: str) -> None:
    """Writes the folder."""
    examples = folder / "examples"
    examples.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLES.values():
        for suffix in (".csv", ".npz"):
            shutil.copyfile(ROOT / "examples" / f"{name}{suffix}", examples / f"{name}{suffix}")
    shutil.copyfile(ROOT / "examples" / "NOTICE", examples / "NOTICE")
    card = (ROOT / "hub_cards" / "space.md").read_text().replace("{sdk_version}", gradio.__version__)
    write_text(folder / "README.md", card)
    write_text(folder / "requirements.txt", f"{package}\n")
    write_text(folder / "app.py", APP)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--package", default=f"motion-grpo[space]=={motion_grpo.__version__}")
    given = parser.parse_args()
    build(given.folder, given.package)
    print(f"wrote {given.folder}: hf upload me/NAME {given.folder} --repo-type space")


if __name__ == "__main__":
    main()
