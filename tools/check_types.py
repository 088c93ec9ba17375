"""Runs pyright and compares the number of its errors with the number that is known, part by part: it may only fall.

    python tools/check_types.py            # fails where a part of src/motion_grpo has more errors than are known
    python tools/check_types.py --update   # and writes down those that have become fewer

The known ones stand in tests/packaging/pyright_errors.json. A part that is not named there has none.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from motion_grpo.files import write_text

ROOT = Path(__file__).parents[1]
KNOWN = ROOT / "tests" / "packaging" / "pyright_errors.json"
PACKAGE = ROOT / "src" / "motion_grpo"


def run_pyright() -> dict[str, Any]:
    """What pyright says of the package, as JSON.

    Raises:
        RuntimeError: it could not be run.
    """
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(ROOT)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode not in (0, 1):  # 1: there are errors
        raise RuntimeError(f"pyright ended with status {process.returncode}: {process.stderr or process.stdout}")
    return json.loads(process.stdout)


def errors_by_part(report: dict[str, Any]) -> dict[str, int]:
    """The number of errors in each part of the package, and in ``total``."""
    errors = [found for found in report["generalDiagnostics"] if found["severity"] == "error"]
    parts = Counter(Path(found["file"]).relative_to(PACKAGE).parts[0].removesuffix(".py") for found in errors)
    return {"total": len(errors)} | dict(sorted(parts.items()))


def compare(known: dict[str, int], now: dict[str, int]) -> tuple[list[str], list[str]]:
    """Sentences about the parts that have more errors than are known, and about those that have fewer."""
    more, fewer = [], []
    for part in sorted(known.keys() | now.keys()):
        was, found = known.get(part, 0), now.get(part, 0)
        if found != was:
            (more if found > was else fewer).append(f"{part} has {found} errors, {was} were known.")
    return more, fewer


def main() -> int:
    """Prints what has changed; the status is 1 where there are more errors than are known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write down what has become fewer")
    options = parser.parse_args()
    report, known = run_pyright(), json.loads(KNOWN.read_text())
    now = errors_by_part(report)
    more, fewer = compare(known, now)
    if more:
        parts = {sentence.partition(" ")[0] for sentence in more}
        for found in report["generalDiagnostics"]:
            path = Path(found["file"]).relative_to(ROOT)
            if found["severity"] == "error" and path.parts[2].removesuffix(".py") in parts:
                print(f"{path}:{found['range']['start']['line'] + 1}: {found['message']}")
        print(*more, "Mend the new ones.", sep="\n")
        return 1
    print(*fewer, f"{now['total']} errors in all, no part has more than are known.", sep="\n")
    if fewer and options.update:
        write_text(KNOWN, json.dumps({part: now.get(part, 0) for part in known | now}, indent=1) + "\n")
    elif fewer:
        print("Write that down: python tools/check_types.py --update")
    return 0


if __name__ == "__main__":
    sys.exit(main())
