"""The lab as files that every command reads: policies, prompts, and the true labels of every step.

Each appears at once or not at all, and is not written again where it already is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepcredit.checkpoints import weights_hash
from stepcredit.data import prompt_to_json, read_rollouts, rollout_to_json, write_rows_into
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.policies import POLICY_NAMES, export_policies, policy_path
from stepcredit.lab.task import STANDARD, Domain, make_prompts
from stepcredit.runs import Manifest, Output
from stepcredit.types import Rollout


def write_policies(directory: Path, *, overwrite: bool = False) -> None:
    """Copy the shipped policies to ``directory/<name>``.

    Raises:
        UserError: Something else lies there and ``overwrite`` is off.
    """
    manifest = Manifest("lab policies", {name: weights_hash(policy_path(name)) for name in POLICY_NAMES})
    with Output(directory, manifest, overwrite=overwrite) as output:
        if not output.complete:
            with output.replacing_folder() as temporary:
                export_policies(temporary)


def write_prompts(
    path: Path, split: str, *, seed: int, count: int, domain: Domain = STANDARD, overwrite: bool = False
) -> None:
    """Draw problems of a split and write them as prompts.

    Raises:
        UserError: There is no such split, or something else lies at ``path`` and ``overwrite`` is off.
    """
    settings: dict[str, object] = {"split": split, "seed": seed, "count": count}
    if domain is not STANDARD:
        settings["domain"] = domain.name
    prompts = make_prompts(split, seed=seed, count=count, domain=domain)
    _write(path, Manifest("lab prompts", settings), map(prompt_to_json, prompts), overwrite)


def write_true_labels(
    graded: Path, path: Path, *, to_first_wrong: bool = False, overwrite: bool = False
) -> None:
    """Write the rollouts of ``graded`` with the rule oracle's label of every step.

    Args:
        to_first_wrong: Responses end with their first wrong step, as process labels are collected
            (arXiv:2305.20050).

    Raises:
        UserError: Something else lies at ``path`` and ``overwrite`` is off.
    """
    labelled: Iterator[Rollout] = map(with_true_labels, read_rollouts(graded))
    if to_first_wrong:
        labelled = map(cut_at_first_wrong, labelled)
    settings: dict[str, object] = {"to_first_wrong": True} if to_first_wrong else {}
    manifest = Manifest("lab step labels", settings, inputs=[graded])
    _write(path, manifest, map(rollout_to_json, labelled), overwrite)


def with_true_labels(rollout: Rollout) -> Rollout:
    """The rollout with the rule oracle's label of every step."""
    return replace(rollout, step_labels=label_steps(rollout))


def cut_at_first_wrong(rollout: Rollout) -> Rollout:
    """A labelled rollout without what follows its first wrong step; one that is cut counts as cut off.

    The tokens that were drawn are those of the whole response, so one that is cut no longer has them.
    """
    labels = rollout.step_labels or ()
    kept = next((number for number, label in enumerate(labels, 1) if label.label < 0.5), len(labels))
    if kept == len(labels):
        return rollout
    response = rollout.response[: labels[kept - 1].end]
    return replace(
        rollout,
        response=response,
        step_labels=labels[:kept],
        finish_reason="length",
        response_token_ids=None,
        tokenizer=None,
    )


def _write(path: Path, manifest: Manifest, rows: Iterator[dict[str, Any]], overwrite: bool) -> None:
    with Output(path, manifest, overwrite=overwrite) as output:
        if not output.complete:
            with output.replacing() as temporary:
                write_rows_into(temporary, path, rows)
