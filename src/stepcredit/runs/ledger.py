"""What a run cost: tokens and floating-point operations, by a stated formula."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FLOPS_FORMULA = "2 * parameters * tokens for a forward pass, 6 * parameters * tokens for training"


@dataclass(slots=True)
class Ledger:
    """Counts tokens as work is done.

    The operations follow the usual approximation (Kaplan et al. 2020): a forward pass costs two
    operations a parameter and token, a backward pass twice that; attention's quadratic term is left out.

    Attributes:
        model_parameters: Parameters of the model that did the work.
        scoring_parameters: Those of all models that score together, where another draws; ``None``
            is the same model.
        prompt_tokens: Tokens read (prefilled), each shared prefix counted once as computed.
        generated_tokens: Tokens drawn.
        scored_tokens: Tokens passed forward to be scored.
        trained_tokens: Tokens passed forward and backward.
    """

    model_parameters: int = 0
    scoring_parameters: int | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    trained_tokens: int = 0

    @property
    def flops(self) -> float:
        """Floating-point operations by :data:`FLOPS_FORMULA`."""
        drawn = self.model_parameters * (self.prompt_tokens + self.generated_tokens)
        scoring = self.model_parameters if self.scoring_parameters is None else self.scoring_parameters
        scored = scoring * self.scored_tokens
        return 2.0 * (drawn + scored) + 6.0 * self.model_parameters * self.trained_tokens

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        scoring = self.scoring_parameters
        return {
            "model_parameters": self.model_parameters,
            **({} if scoring is None else {"scoring_parameters": scoring}),
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "scored_tokens": self.scored_tokens,
            "trained_tokens": self.trained_tokens,
            "flops": self.flops,
            "flops_formula": FLOPS_FORMULA,
        }

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the counts of a manifest's ledger, as when a run goes on from an earlier one."""
        self.model_parameters = self.model_parameters or int(other.get("model_parameters", 0))
        self.prompt_tokens += int(other.get("prompt_tokens", 0))
        self.generated_tokens += int(other.get("generated_tokens", 0))
        self.scored_tokens += int(other.get("scored_tokens", 0))
        self.trained_tokens += int(other.get("trained_tokens", 0))
