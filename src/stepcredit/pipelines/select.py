"""Take a subset of rollouts: fewer prompts or responses, other shares of right ones, other step labels.

Subsets are nested: a smaller share of prompts, or fewer responses, is contained in a larger one, so that a
learning curve only ever adds data.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from stepcredit.conversations import plain_text
from stepcredit.data import read_rollouts, rollout_to_json, write_rows_into
from stepcredit.data.prompt_ids import one_prompt_each
from stepcredit.data.sources import file_kind
from stepcredit.errors import DataError, UserError
from stepcredit.labelling import KINDS
from stepcredit.options import OutputResult, argument, check_at_least_one, option
from stepcredit.runs import Manifest, Output
from stepcredit.types import Rollout
from stepcredit.wording import quantity

_SHINGLE = 3
"""Characters of the pieces by which two prompts are compared."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit select``."""

    rollouts: tuple[Path, ...] = argument("files of rollouts; the subsets are joined", many=True)
    out: Path = option("file to write", metavar="FILE")
    prompts: float = option("share of the prompts to keep", default=1.0)
    responses: int | None = option(
        "number of responses to keep for each prompt, the first ones in its file", default=None
    )
    one_response: str | None = option(
        "RIGHT:WRONG: keep one response to each prompt, with right and wrong ones in this ratio "
        "over all prompts; prompts that do not fit the ratio are left out",
        default=None,
        metavar="RATIO",
    )
    distinct: bool = option("keep only the first of equal responses to a prompt", default=False)
    similar_prompts: float | None = option(
        "drop prompts whose similarity to a kept one is at least this (Jaccard similarity of "
        "character trigrams)",
        default=None,
    )
    step_labels: str | None = option(
        "use this kind of the step labels written by label math-shepherd",
        default=None,
        choices=KINDS,
    )
    seed: int = option("seed of the order in which prompts are taken", default=0)
    skip_invalid: bool = option("skip malformed rows and count them", default=False)
    overwrite: bool = option("replace the existing output", default=False)


@dataclass(frozen=True, kw_only=True)
class Result(OutputResult):
    """What was kept."""

    counts: Mapping[str, int] = field(default_factory=dict)

    def to_text(self) -> str:
        """One line."""
        counts = self.counts
        kept = ", ".join(
            f"{counts.get(f'{noun}s kept', 0):,} of {quantity(counts.get(f'{noun}s read', 0), noun)}"
            for noun in ("response", "prompt")
        )
        return f"{kept} -> {self.out}" + (" (already complete)" if self.already_done else "")


def run(options: Options) -> Result:
    """Select."""
    ratio = _check(options)
    file_kind(options.out)
    manifest = Manifest("select", _settings(options), inputs=options.rollouts)
    with Output(options.out, manifest, overwrite=options.overwrite) as output:
        if not output.complete:
            kept = _select(options, ratio, manifest)
            with output.replacing() as temporary:
                write_rows_into(temporary, options.out, map(rollout_to_json, kept))
        return Result(out=options.out, already_done=output.complete, counts=output.counts)


def _select(options: Options, ratio: tuple[int, int] | None, manifest: Manifest) -> list[Rollout]:
    from stepcredit.labelling.monte_carlo import with_labels

    by_prompt = _read(options, manifest)
    names = _prompts(options, by_prompt)
    kept = (
        _one_response(by_prompt, names, ratio, options.seed)
        if ratio is not None
        else [rollout for name in names for rollout in by_prompt[name]]
    )
    if options.step_labels is not None:
        kept = [with_labels(rollout, options.step_labels) for rollout in kept]
    if not kept:
        raise DataError("nothing is left", where=options.rollouts[0], hint="use less strict options")
    manifest.count("responses kept", len(kept))
    manifest.count("prompts kept", len({rollout.prompt_id for rollout in kept}))
    return kept


def _check(options: Options) -> tuple[int, int] | None:
    named = [path.resolve() for path in options.rollouts]
    if twice := next((path for path in named if named.count(path) > 1), None):
        raise UserError("is named twice", where=twice, hint="name each file once")
    if not 0 < options.prompts <= 1:
        raise UserError(f"must lie in (0, 1], got {options.prompts}", where="--prompts")
    check_at_least_one(options, "responses")
    if options.similar_prompts is not None and not 0 < options.similar_prompts <= 1:
        raise UserError(f"must lie in (0, 1], got {options.similar_prompts}", where="--similar-prompts")
    if options.one_response is None:
        return None
    right, _, wrong = options.one_response.partition(":")
    if not (right.isdecimal() and wrong.isdecimal() and int(right) + int(wrong)):
        raise UserError(
            f"{options.one_response!r} is not a ratio", where="--one-response", hint="write it as 1:1 or 1:10"
        )
    return int(right), int(wrong)


def _settings(options: Options) -> dict[str, Any]:
    left_out = ("rollouts", "out", "overwrite")
    return {
        setting.name: getattr(options, setting.name)
        for setting in fields(options)
        if setting.name not in left_out
    }


def _read(options: Options, manifest: Manifest) -> dict[str, list[Rollout]]:
    """Each prompt's responses that take part, prompts in the order of the files; ids are made unique."""
    by_prompt: dict[str, list[Rollout]] = {}
    ids: set[str] = set()
    for position, path in enumerate(options.rollouts):
        in_file: dict[str, list[Rollout]] = {}
        source = read_rollouts(path, skip_invalid=options.skip_invalid)
        for rollout in source:
            manifest.count("responses read")
            # Two policies number their responses to one prompt alike.
            identifier = rollout.id if rollout.id not in ids else f"{rollout.id}/{position}"
            ids.add(identifier)
            in_file.setdefault(rollout.prompt_id, []).append(replace(rollout, id=identifier))
        if source.num_skipped:
            manifest.count("malformed", source.num_skipped)
        for name, group in in_file.items():
            chosen = sorted(group, key=lambda rollout: rollout.index)[: options.responses]
            by_prompt[name] = list(one_prompt_each([*by_prompt.get(name, ()), *chosen], path))
    manifest.count("prompts read", len(by_prompt))
    if not options.distinct:
        return by_prompt
    return {name: list(_distinct(group)) for name, group in by_prompt.items()}


def _distinct(group: Iterable[Rollout]) -> Iterator[Rollout]:
    """Without those that an earlier one equals; turns are compared with their tool calls and results."""
    seen: set[str] = set()
    for rollout in group:
        content = json.dumps([rollout.response, rollout.turns], sort_keys=True)
        if content not in seen:
            seen.add(content)
            yield rollout


def _prompts(options: Options, by_prompt: Mapping[str, list[Rollout]]) -> list[str]:
    """The prompts that are kept, in the order of the files."""
    count = max(1, round(options.prompts * len(by_prompt)))
    kept = set(sorted(by_prompt, key=lambda name: _place(options.seed, name))[:count])
    names = [name for name in by_prompt if name in kept]
    if options.similar_prompts is None:
        return names
    texts = {name: plain_text(by_prompt[name][0].prompt) for name in names}
    return list(_dissimilar(texts, options.similar_prompts))


def _place(seed: int, name: str) -> bytes:
    """Where a prompt stands in the order of the seed; the same whatever other prompts there are."""
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _dissimilar(texts: Mapping[str, str], threshold: float) -> Iterator[str]:
    """Greedily, in order: texts whose pieces overlap with no kept one's by ``threshold`` or more."""
    holders: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for name, text in texts.items():
        pieces = {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}
        shared = Counter(other for piece in pieces for other in holders.get(piece, ()))
        if any(n / (len(pieces) + sizes[other] - n) >= threshold for other, n in shared.items()):
            continue
        sizes[name] = len(pieces)
        for piece in pieces:
            holders.setdefault(piece, []).append(name)
        yield name


def _one_response(
    by_prompt: Mapping[str, list[Rollout]], names: Iterable[str], ratio: tuple[int, int], seed: int
) -> list[Rollout]:
    """One graded response a prompt, in the ratio, of as many prompts as give it.

    The kind that the ratio has fewer of is drawn from all prompts with such a response, in the order of the
    seed; the other kind from the prompts that remain. Were the prompts with one kind only to come first,
    or to make up for a shortage, the rare label would tell how hard its prompt is.
    """
    right: dict[str, Rollout] = {}
    wrong: dict[str, Rollout] = {}
    for name in names:
        for rollout in by_prompt[name]:
            if rollout.correct is not None:
                (right if rollout.correct else wrong).setdefault(name, rollout)
    order = sorted(right.keys() | wrong.keys(), key=lambda name: _place(seed, "one response " + name))
    (few, rare), (many, frequent) = sorted(
        zip(ratio, (right, wrong), strict=True), key=lambda share: share[0]
    )
    candidates = [name for name in order if name in rare] if few else []
    taken = min(1, len(candidates))
    left = len(frequent) - sum(name in frequent for name in candidates[:taken])
    for name in candidates[taken:]:
        left -= name in frequent
        if round((taken + 1) * many / few) > left:
            break
        taken += 1
    kept = {name: rare[name] for name in candidates[:taken]}
    others = [name for name in order if name in frequent and name not in kept]
    count = max(1, round(taken * many / few)) if few else len(others)
    kept |= {name: frequent[name] for name in others[:count]}
    return [kept[name] for name in by_prompt if name in kept]
