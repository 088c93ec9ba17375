"""Templates of hub_cards/, filled from facts; a card that lacks one is not built.

:mod:`motion_grpo.cards` gathers the facts of models, :mod:`motion_grpo.cards.datasets` those of data sets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import jinja2.meta
import yaml
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData
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

# The text comes filled: its template includes others, which huggingface_hub's do not.
_PAGE = "---\n{{ card_data }}\n---\n\n{{ text }}\n\n"


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
        ValueError: a fact is missing or empty (which one of which card).
    """
    return ModelCard.from_template(ModelCardData(**metadata), template_str=_PAGE, text=fill(kind, facts).strip())


def dataset_card(metadata: Mapping[str, Any], facts: Mapping[str, Any]) -> DatasetCard:
    """The card of a data set; as :func:`model_card`."""
    text = fill("dataset", facts).strip()
    return DatasetCard.from_template(DatasetCardData(**metadata), template_str=_PAGE, text=text)


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


def is_hub_id(name: Any) -> bool:
    """Whether it could name a repository, which is ``namespace/name``."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return isinstance(name, str) and "/" in name


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
