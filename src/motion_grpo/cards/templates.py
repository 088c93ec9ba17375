"""Templates of hub_cards/, filled from facts; a card that lacks one, or that the Hub would refuse, is not built.

:mod:`motion_grpo.cards` gathers the facts of models, :mod:`motion_grpo.cards.datasets` those of data sets.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import jinja2.meta
import yaml
from huggingface_hub import CardData, DatasetCard, DatasetCardData, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

FACTS = {
    "base_evaluation": "how the base model does, to compare with",
    "base_model": "the model that the training started from",
    "batch": "examples of an optimizer step",
    "body": "the body that betas refer to",
    "columns": "what the columns hold",
    "command": "the command that trained it",
    "curves": "a picture of the training's curves",
    "data": "what it was trained on",
    "eta": "stochasticity of the sampling",
    "evaluation": "how good it is; say cards.NOT_EVALUATED if nobody knows",
    "evaluation_note": "what one has to know of the evaluation",
    "frames": "frames of a window",
    "hours": "wall time of the training",
    "license": "terms of use",
    "limits": "what it cannot do",
    "load": "the line that loads it",
    "machine": "what it was trained on",
    "name": "its name",
    "network": "the network's configuration",
    "num_inference_steps": "sampling steps",
    "parameters": "how many it has",
    "policies": "whom it learned to tell from recordings",
    "precision": "type of the weights in the file",
    "seed": "of the training",
    "settings": "of the training",
    "size": "of the weights' file",
    "sources": "whose recordings these are",
    "steps": "optimizer steps of the training",
    "summary": "a paragraph that says what it is",
    "title": "of the data set",
    "training_config": "the file with the training's whole configuration",
    "validation": "what the training's own evaluation said",
    "versions": "software that it was trained with",
}
"""What cards are filled from, and how errors explain it."""


@dataclass(frozen=True)
class SourceFacts:
    """What a card has to say about one source of recordings; nothing may be empty."""

    name: str
    """As in the column ``source``."""
    title: str
    license: str
    attribution: str
    """Who made it, and what the license or the authors ask to be said or cited."""
    url: str


@dataclass(frozen=True)
class DataFacts:
    """What a card has to say about the recordings that a model was trained on."""

    name: str
    """Id on the Hub, or the name of a data set that is not there."""
    sources: tuple[SourceFacts, ...]


def model_card(kind: str, metadata: Mapping[str, Any], facts: Mapping[str, Any]) -> ModelCard:
    """The card of a model.

    Args:
        kind: names a template of hub_cards/.
        metadata: arguments of huggingface_hub's ``ModelCardData``.
        facts: what the template asks for, see :data:`FACTS`. None states that there is nothing to say.

    Raises:
        ValueError: a fact is missing or empty (which one of which card), or the metadata are none for the Hub.
    """
    text = fill(kind, facts)
    return ModelCard(_checked(ModelCardData(**metadata), text, kind, str(facts["name"])))


def dataset_card(metadata: Mapping[str, Any], facts: Mapping[str, Any]) -> DatasetCard:
    """The card of a data set; as :func:`model_card`."""
    text = fill("dataset", facts)
    return DatasetCard(_checked(DatasetCardData(**metadata), text, "dataset", str(facts["title"])))


def fill(kind: str, facts: Mapping[str, Any]) -> str:
    """The text of a card, without its metadata.

    Raises:
        ValueError: a fact is missing, or is an empty text.
    """
    template = f"{kind}.md.jinja"
    of = facts.get("name") or facts.get("title") or "a model without a name"
    missing = sorted(_asked_for(template) - facts.keys())
    empty = sorted(name for name, value in facts.items() if isinstance(value, str) and not value.strip())
    if missing or empty:
        named = ", ".join(f"{name} ({FACTS[name]})" if name in FACTS else name for name in missing or empty)
        raise ValueError(f"The {kind} card of {of} needs {named}.")
    try:
        return _ENVIRONMENT.get_template(template).render(facts)
    except jinja2.UndefinedError as error:
        raise ValueError(f"The {kind} card of {of} lacks a part of a fact: {error.message}.") from error


def check_metadata(content: str) -> None:
    """Refuses what the Hub's server would, as far as that is known.

    ``ModelCard.validate`` of huggingface_hub asks the server and checks nothing without it; that a model-index can be
    read back is checked by every ``ModelCard(...)``.

    Raises:
        ValueError: no metadata, fields of the wrong type, ids that are none, an incomplete model-index.
    """
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    metadata = yaml.safe_load(found[1]) if found else None
    if not isinstance(metadata, dict):
        raise ValueError("A card begins with metadata, YAML between two lines of ---; there are none.")
    if "license" not in metadata:
        raise ValueError("The metadata name no license.")
    _check_types(metadata)
    _check_ids(metadata)
    for model in metadata.get("model-index", []):
        for result in model["results"]:
            _check_result(result)


def _check_types(metadata: dict[str, Any]) -> None:
    for field in ("license", "pipeline_tag", "library_name", "pretty_name", "license_name", "base_model_relation"):
        if not isinstance(metadata.get(field, ""), str):
            raise ValueError(f"{field} is {metadata[field]!r}; it must be a text.")
    for field in ("tags", "datasets", "metrics", "language"):
        values = metadata.get(field, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{field} is {values!r}; it must be a list of texts.")


def _check_ids(metadata: dict[str, Any]) -> None:
    base = metadata.get("base_model", [])
    for name in [*metadata.get("datasets", []), *(base if isinstance(base, list) else [base])]:
        if not is_hub_id(name):
            raise ValueError(f"{name!r} is no id of a repository on the Hub; give namespace/name, or leave it out.")


def _check_result(result: dict[str, Any]) -> None:
    absent = [f"{part}.{key}" for part, key in _REQUIRED if key not in result.get(part, {})]
    absent += ["metrics"] if not result.get("metrics") else []
    absent += [f"metrics.{key}" for m in result["metrics"] for key in ("type", "value") if key not in m]
    if absent:
        raise ValueError(f"A result of the model-index lacks {', '.join(absent)}.")


def is_hub_id(name: Any) -> bool:
    """Whether it could name a repository, which is ``namespace/name``."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return isinstance(name, str) and "/" in name


_REQUIRED = (("task", "type"), ("dataset", "type"), ("dataset", "name"))


def _checked(metadata: CardData, text: str, kind: str, name: str) -> str:
    content = f"---\n{metadata.to_yaml()}\n---\n\n{text.strip()}\n"
    try:
        check_metadata(content)
    except ValueError as error:
        raise ValueError(f"The metadata of the {kind} card of {name}: {error}") from error
    return content


def _source(name: str) -> str:
    return resources.files("motion_grpo.hub_cards").joinpath(name).read_text()


def _asked_for(template: str) -> set[str]:
    """The facts that a template and those that it includes are filled with."""
    tree = _ENVIRONMENT.parse(_source(template))
    included = [name for name in jinja2.meta.find_referenced_templates(tree) if name]
    return jinja2.meta.find_undeclared_variables(tree).union(*map(_asked_for, included))


def _yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=118).rstrip()


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FunctionLoader(_source),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["yaml"] = _yaml
