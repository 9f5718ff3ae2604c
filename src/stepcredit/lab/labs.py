"""The two labs: their problems, tutors and tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stepcredit.errors import UserError
from stepcredit.lab.second.lines import WORDS
from stepcredit.lab.second.tutor import SECOND_TUTORS, SecondTutor
from stepcredit.lab.task import DOMAINS, Domain
from stepcredit.lab.tokenizer import CONTEXT_LENGTH, make_tokenizer
from stepcredit.lab.tutor import TUTORS, Tutor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A world of problems.

    Attributes:
        name: ``lab`` or ``lab2``.
        domains: Its standard problems, which everything is measured on, and two other kinds that the
            policies know as well, by name.
        tutors: ``weak``, ``mid`` and ``strong``, which the policies of these names imitate.
        words: Tokens beside the characters of the task.
        context_length: Longest sequence in tokens.
    """

    name: str
    domains: Mapping[str, Domain]
    tutors: Mapping[str, Tutor] | Mapping[str, SecondTutor]
    words: Sequence[str] = field(default=())
    context_length: int = CONTEXT_LENGTH

    @property
    def standard(self) -> Domain:
        """The problems that everything is measured on."""
        return next(iter(self.domains.values()))

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of its policies."""
        return make_tokenizer(self.words, context_length=self.context_length)

    def tutor(self, name: str) -> Tutor | SecondTutor:
        """The tutor called ``weak``, ``mid`` or ``strong``.

        Raises:
            UserError: There is no such tutor.
        """
        if name not in self.tutors:
            raise UserError(
                f"there is no tutor {name!r}", where=self.name, hint=f"use {', '.join(self.tutors)}"
            )
        return self.tutors[name]


FIRST: Final = Lab(name="lab", domains=DOMAINS, tutors=TUTORS)
SECOND: Final = Lab(
    name="lab2",
    domains={
        domain.name: domain
        for domain in (
            Domain(name="lab2", operations="+-", modulus=130, fewest=2, most=4),
            Domain(name="lab2-comparisons", operations="<>", modulus=130, fewest=2, most=4),
            Domain(name="lab2-base50", operations="+-", modulus=50, fewest=2, most=4),
        )
    },
    tutors=SECOND_TUTORS,
    words=WORDS,
    context_length=384,
)
LABS: Final[Mapping[str, Lab]] = {lab.name: lab for lab in (FIRST, SECOND)}


def lab_named(name: str) -> Lab:
    """The lab called ``lab`` or ``lab2``.

    Raises:
        UserError: There is no such lab.
    """
    if name not in LABS:
        raise UserError(f"there is no lab {name!r}", hint=f"use {', '.join(LABS)}")
    return LABS[name]
