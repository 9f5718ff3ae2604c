"""The README of a trained reward model, made from what its run recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepcredit.checkpoints import PRMCard
from stepcredit.errors import UserError
from stepcredit.objectives import OBJECTIVES
from stepcredit.training.heldout import HELDOUT_METRICS, no_better_than_chance
from stepcredit.wording import quantity


def model_card(card: PRMCard, *, name: str, base: str, manifest: Mapping[str, Any]) -> str:
    """Markdown with the front matter that the hub reads.

    Args:
        manifest: Counts, ledger and held-out metrics of the run.
    """
    loader, load = "load_scorer", "load_scorer"
    if card.family == "implicit":
        loader, load = "ImplicitPRM", "ImplicitPRM.from_pretrained"
    objective = OBJECTIVES.get((card.objective or "").partition(" ")[0])
    labels = "step labels" if objective is not None and objective.needs_step_labels else "answer labels alone"
    lines = [
        "---",
        f"base_model: {base}",
        "library_name: transformers",
        "tags: [reward-model, process-reward-model, stepcredit]",
        "---",
        f"# {name}",
        "",
        f"A process reward model (family: {card.family}) that `stepcredit` trained from `{base}` with the "
        f"objective {card.objective}, on {labels}.",
        "",
        "```python",
        f"from stepcredit import {loader}",
        f"prm = {load}({name!r})",
        "score = prm.score(prompt, response)",
        "[(step.text, step.reward) for step in score.steps]",
        "```",
        "",
        *_heldout(manifest, chose=bool(card.settings.get("keep_best", True))),
        "## Training",
        "",
        *_training(card, manifest),
    ]
    return "\n".join(lines) + "\n"


def _heldout(manifest: Mapping[str, Any], *, chose: bool) -> list[str]:
    metrics = manifest.get("heldout") or {}
    if not metrics:
        return ["No held-out data were given, so nothing is known about its quality.", ""]
    rows = [
        f"| {label} | {metrics[name]:.4g} |" for name, label in HELDOUT_METRICS.items() if name in metrics
    ]
    number = manifest["counts"].get("heldout_examples", 0)
    choice = ", which also chose the weights" if chose else ""
    title = f"## Held-out results ({quantity(number, 'response')}{choice})"
    warning = no_better_than_chance(metrics)
    said = [] if warning is None else [f"{warning[0].upper()}{warning[1:]}.", ""]
    return [title, "", *said, "| metric | value |", "| --- | --- |", *rows, ""]


def _training(card: PRMCard, manifest: Mapping[str, Any]) -> list[str]:
    counts, ledger = manifest["counts"], manifest["ledger"]
    reference = "none" if card.reference is None else f"`{card.reference.source}`"
    if card.reference is not None and card.reference.adapter_off:
        reference += " (adapter off)"
    facts = {
        "reference": reference,
        "beta": card.beta,
        "steps are split by": f"`{card.step_rule}`",
        "examples": f"{counts.get('examples', 0):,} of {quantity(counts.get('rollouts', 0), 'rollout')}",
        "training data": f"`{card.training_data_hash}`",
        "tokens trained on": f"{ledger['trained_tokens']:,}",
        "operations": f"{ledger['flops']:.3g} ({ledger['flops_formula']})",
        "settings": ", ".join(f"{key} {value}" for key, value in card.settings.items() if value is not None),
        "versions": ", ".join(f"{key} {value}" for key, value in card.versions.items()),
    }
    return [f"- {key}: {value}" for key, value in facts.items() if value is not None]


def push_to_hub(directory: Path, repository: str, *, private: bool) -> None:
    """Upload a finished model.

    Raises:
        UserError: The hub refuses or cannot be reached; the model stays where it is.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(directory))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"the model is saved in {directory} but could not be uploaded ({reason})",
            where=f"--push-to-hub {repository}",
            hint="log in with: hf auth login, then upload the directory, or run the command again",
        ) from error
