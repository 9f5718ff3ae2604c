"""A reward model on a server (``stepcredit serve``), used as if it were here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, get_args

from stepcredit.client import Client
from stepcredit.conversations import tools_of
from stepcredit.encoding import EncodingError
from stepcredit.encoding.base import EncodingProblem
from stepcredit.errors import UserError
from stepcredit.scorers.base import OnSkip, ResponseScorer
from stepcredit.scorers.kind import Kind
from stepcredit.scorers.loading import chat_encoding
from stepcredit.scorers.settings import ScorerSettings
from stepcredit.steps import listed_steps
from stepcredit.types import ResponseScore, Rollout

_AT_ONCE = 8
_MOST_RESPONSES = 64


class RemoteScorer(ResponseScorer):
    """Sends each prompt's responses to a server; several requests are under way at once.

    A response that ends with a prompt's last one in the file shares its request. Recorded token ids are not
    sent: the server cuts the text into tokens itself.

    Args:
        server: ``http://HOST:PORT``, ``http://HOST:PORT#MODEL`` for one of several models, or a client.

    Raises:
        UserError: There is no server, or no such model.
    """

    def __init__(self, server: str | Client, *, with_tokens: bool = False) -> None:
        super().__init__(with_tokens=with_tokens)
        base, _, model = (server.address if isinstance(server, Client) else server).partition("#")
        self.client = server if isinstance(server, Client) else Client(base)
        models = self.client.models()
        if model and model not in models:
            raise UserError(
                f"has no model {model!r}",
                where=base,
                hint=f"write {base}#MODEL with one of {', '.join(models)}",
            )
        self.model = model or next(iter(models))
        self._scorer, self.step_rule = models[self.model]

    @property
    def name(self) -> str:
        """What the server says of its model."""
        return self._scorer

    def score_rollouts(self, rollouts: Iterator[Rollout], on_skip: OnSkip | None) -> Iterator[ResponseScore]:
        """Ask the server for one prompt's responses after another's.

        Raises:
            UserError: The server does not answer, or refuses.
            EncodingError: A response cannot be scored and ``on_skip`` is not given.
        """
        groups = _groups(rollouts)
        pending: deque[tuple[list[Rollout], Future[list[ResponseScore | EncodingError]]]] = deque()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="reward") as pool:
            while True:
                while len(pending) < 2 * _AT_ONCE and (group := next(groups, None)) is not None:
                    pending.append((group, pool.submit(self._ask, group)))
                if not pending:
                    return
                group, future = pending.popleft()
                for rollout, result in zip(group, future.result(), strict=True):
                    if isinstance(result, ResponseScore):
                        self.ledger.scored_tokens += result.num_tokens
                        yield replace(result, id=rollout.id, prompt_id=rollout.prompt_id)
                    elif on_skip is None:
                        raise result
                    else:
                        on_skip(result)

    def _ask(self, group: Sequence[Rollout]) -> list[ResponseScore | EncodingError]:
        """One request; where it is refused for one of its responses, one for each."""
        first = group[0]
        steps = [None if rollout.turns is not None else listed_steps(rollout) for rollout in group]
        try:
            return list(
                self.client.score(
                    first.prompt,
                    [rollout.response if rollout.turns is None else rollout.turns for rollout in group],
                    tokens=self.with_tokens,
                    finished=first.finish_reason != "length",
                    model=self.model,
                    tools=tools_of(first.extras, first.id),
                    steps=steps if any(steps) else None,
                )
            )
        except UserError as error:
            if "responses" not in error.problem:
                raise
            if len(group) > 1:
                return [result for rollout in group for result in self._ask([rollout])]
            # The server says which kind it is, in words only.
            kinds = [kind for kind in get_args(EncodingProblem) if f"({kind})" in error.problem]
            return [EncodingError(kinds[0] if kinds else "not-encodable", error.problem, where=first.id)]


def _groups(rollouts: Iterable[Rollout]) -> Iterator[list[Rollout]]:
    """Neighbours with one prompt and the same tools that have all ended, or all not."""

    def alike(rollout: Rollout) -> tuple[Any, ...]:
        # Rows with one prompt id may hold different prompts.
        return rollout.prompt, rollout.finish_reason == "length", str(rollout.extras.get("tools"))

    for _, neighbours in groupby(rollouts, key=alike):
        group: list[Rollout] = []
        for rollout in neighbours:
            group.append(rollout)
            if len(group) == _MOST_RESPONSES:
                yield group
                group = []
        if group:
            yield group


@dataclass(frozen=True, kw_only=True)
class RemoteKind(Kind):
    """Whatever a server has; how it scores is the server's to decide."""

    def load(self, settings: ScorerSettings) -> RemoteScorer:
        """Ask the server for its models."""
        return RemoteScorer(str(settings.directory), with_tokens=settings.with_tokens)

    def own_step_rule(self, settings: ScorerSettings) -> str:
        """The server's."""
        return self.load(settings).step_rule

    def identity(self, settings: ScorerSettings) -> dict[str, Any]:
        """The server's word for its model."""
        return {"prm": self.load(settings).name, "server": str(settings.directory)}


REMOTE = RemoteKind(name="remote", encoding=chat_encoding, takes=frozenset())
