"""docs/guidance.md shows what benchmarks/inference.py measured."""

import json

from benchmarks import inference


def test_the_page_shows_what_was_measured() -> None:
    text = inference.table(json.loads(inference.KEPT.read_text()))
    assert f"{inference.START}\n{text}\n{inference.END}" in inference.PAGE.read_text()
