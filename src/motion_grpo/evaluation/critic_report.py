"""A comparison of perceptual models for people: tables of what its ``results.json`` holds."""

from typing import Any

from motion_grpo.evaluation.report import table


def markdown(results: dict[str, Any]) -> str:
    """The tables of a run's ``results.json``."""
    methods, policies = results["methods"], results["policies"]
    columns = [(policy, split) for policy, of in policies.items() for split in of["pairs"]]
    totals = [policies[policy]["pairs"][split]["windows"] for policy, split in columns]
    lines = [
        "Accuracy, percent [95% interval], and how many pairs were judged wrongly. A pair is a recorded window and one "
        "that the policy made up for the same head.",
        "",
        *table(
            ["method", *(f"{policy}, {split} ({n} pairs)" for (policy, split), n in zip(columns, totals, strict=True))],
            ([name, *(_accuracy(of["accuracy"][p][s]) for p, s in columns)] for name, of in methods.items()),
        ),
    ]
    faults = [(fault, split) for split, of in next(iter(methods.values()))["noticed"].items() for fault in of]
    lines += [
        "Noticed, percent [95% interval]: windows whose recording scores above itself with body and head lifted by 5 "
        "cm, and above a body 10 cm shorter that hangs from the same head.",
        "",
        *table(
            ["method", *(f"{fault}, {split}" for fault, split in faults)],
            (
                [name, *(_accuracy(of["noticed"][split][fault]) for fault, split in faults)]
                for name, of in methods.items()
            ),
        ),
    ]
    for split in results["settings"]["splits"]:
        artefacts = list(next(iter(methods.values()))["severity"][split])
        count = next(iter(methods.values()))["severity"][split][artefacts[0]]["windows"]
        lines += [
            f"{split}: Spearman correlation of score and severity, mean over {count} windows [95% interval] (pooled "
            "over windows).",
            "",
            *table(
                ["artefact", *methods],
                ([a, *(_spearman(of["severity"][split][a]) for of in methods.values())] for a in artefacts),
            ),
        ]
    lines += [
        "Cost of a window: scoring / rollout (share).",
        "",
        *table(
            ["method", "parameters", *policies],
            (
                [name, f"{of['parameters'] / 1e6:.2f} M", *(_cost(of["cost"][policy]) for policy in policies)]
                for name, of in methods.items()
            ),
        ),
    ]
    return "\n".join([*lines, *(f"- {key}: {value}" for key, value in results["settings"].items()), ""])


def _accuracy(of: dict[str, Any]) -> str:
    return f"{of['percent']:.2f} [{of['lo']:.2f}, {of['hi']:.2f}], {of['wrong']} wrong"


def _spearman(of: dict[str, Any]) -> str:
    return f"{of['spearman']:.3f} [{of['lo']:.3f}, {of['hi']:.3f}] ({of['pooled_spearman']:.3f})"


def _cost(of: dict[str, Any]) -> str:
    return f"{of['scoring_ms']:.2f} / {of['rollout_ms']:.2f} ms ({100 * of['ratio']:.1f}%)"
