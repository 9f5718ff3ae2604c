"""What a run of experiments would do and take, without doing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepcredit.pipelines.driver import Plan, Store, command_line
from stepcredit.training.config import TrainConfig
from stepcredit.training.plan import OPERATIONS_FORMULA, PlanOptions, Shape, Workload, make_plan
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Machine, Scale
from stepcredit_study.frame.world import World

FORMULAS: Mapping[str, str] = {
    "sample": "2 x parameters x (prompts x tokens of a prompt + responses x tokens of a response)",
    "label math-shepherd": "2 x parameters x responses x (steps - 1) x (tokens of prompt and prefix + "
    "completions x tokens that remain), where prefix and rest are half a response in the mean; equal "
    "prefixes, which are completed once, are not taken into account",
    "train": OPERATIONS_FORMULA + "; of paired objectives the most pairs that half right responses give",
    "label autopsv": "training as for train, and one pass of 2 x parameters x tokens",
    "search": "2 x parameters x tokens of prompts and of what is drawn, as many responses as the search is "
    "wide (twice as many where it looks ahead), for the generator and each model that scores, as each "
    "token is read once",
    "score": "2 x parameters x tokens of prompts and responses for each model that runs: policy and "
    "reference of an implicit PRM, else one; equal responses, which are scored once, are not "
    "taken into account",
}
"""Operations by command; the others run no model. Time is operations over what the devices reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCommand:
    """A command that a run would start.

    Attributes:
        line: As it is typed, with what launches it.
        tokens: That a model reads, writes or is trained on; ``None`` where it is not known.
        flops: Operations, by :data:`FORMULAS`.
        hours: On the devices that it uses, at the machine's utilisation.
    """

    command: str
    line: str
    out: Path
    tokens: float | None = None
    flops: float | None = None
    hours: float | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields, and the formula."""
        return asdict(self) | {"out": str(self.out), "formula": FORMULAS.get(self.command)}

    def to_text(self) -> str:
        """The line, under a comment with what it takes, so that the whole plan is a shell script."""
        if not self.flops:
            return self.line
        return f"# {_amounts(self.tokens or 0.0, self.flops, self.hours or 0.0)}\n{self.line}"


def plan(experiments: Sequence[Experiment], scale: Scale, out: Path) -> list[PlannedCommand]:
    """The commands that the experiments need for all seeds, each once, in an order that works."""
    recorder = Plan()
    store = Store(out / "store", recorder)
    for experiment in experiments:
        for seed in range(scale.seeds):
            experiment.prepare(World(scale, store, seed))
    estimator = None if scale.machine is None else _Estimator(scale, scale.machine)
    planned = []
    for command, options in recorder.steps:
        line = command_line(command, options, scale.launchers)
        known = {} if estimator is None else estimator.amounts(command, options)
        planned.append(PlannedCommand(command=command, line=line, out=options.out, **known))
    return planned


def total_line(commands: Sequence[PlannedCommand]) -> str:
    """The sum, and the formulas behind it, as comments."""
    known = [command for command in commands if command.flops is not None]
    if not known:
        return f"# {len(commands)} commands"
    tokens, flops, hours = (
        sum(getattr(command, name) or 0.0 for command in known) for name in ("tokens", "flops", "hours")
    )
    unknown = len(commands) - len(known)
    lines = [f"# {len(commands)} commands, one after another: {_amounts(tokens, flops, hours)}"]
    if unknown:
        lines[0] += f"; {unknown} of unknown size are not in the sum"
    used = {command.command for command in known}
    lines += [f"# operations of {name}: {text}" for name, text in FORMULAS.items() if name in used]
    return "\n".join(lines)


def _amounts(tokens: float, flops: float, hours: float) -> str:
    return f"{tokens:.2e} tokens, {flops:.2e} operations, {hours:.2f} hours"


@dataclass(frozen=True, slots=True)
class _Cost:
    tokens: float
    flops: float

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.tokens + other.tokens, self.flops + other.flops)


@dataclass(frozen=True, slots=True)
class _Volume:
    """How much a file holds: prompts and responses by the file of prompts that they come from."""

    parts: Mapping[Path, tuple[float, float]]

    @property
    def prompts(self) -> float:
        return sum(prompts for prompts, _ in self.parts.values())

    @property
    def responses(self) -> float:
        return sum(responses for _, responses in self.parts.values())


class _Estimator:
    """Follows sizes from command to command, and works out what each takes."""

    def __init__(self, scale: Scale, machine: Machine) -> None:
        self._scale, self._machine = scale, machine
        self._volumes: dict[Path, _Volume] = {}
        count = float(scale.sizes.train_prompts)
        for other in scale.other_kinds.values():
            if other.graded is not None:
                path = Path(other.graded)
                self._volumes[path] = _Volume({path: (count, count * scale.sizes.train_responses)})
        self._trained: dict[str, TrainConfig] = {}

    def amounts(self, command: str, options: Any) -> dict[str, float]:
        """Tokens, operations and hours of a command; nothing if the size of its input is not known."""
        ways = {
            "sample": self._sample,
            "select": self._select,
            "train": self._train,
            "score": self._score,
            "search": self._search,
            "label math-shepherd": self._math_shepherd,
            "label autopsv": self._autopsv,
        }
        cost = ways.get(command, self._other)(options)
        if cost is None:
            return {}
        devices = self._scale.devices(command, getattr(options, "policy", None))
        speed = devices * self._machine.device_flops * self._machine.utilisation
        return {"tokens": cost.tokens, "flops": cost.flops, "hours": cost.flops / speed / 3600}

    @property
    def _length(self) -> float:
        return self._machine.prompt_tokens + self._machine.response_tokens

    def _parameters(self, name: str | None) -> float:
        """Of a generator; anything else was trained from the base."""
        known = self._scale.parameters
        return known.get(name or "", known[self._scale.base])

    def _forward(self, tokens: float, name: str | None = None) -> _Cost:
        return _Cost(tokens, 2 * self._parameters(name) * tokens)

    def _sample(self, options: Any) -> _Cost | None:
        # The files are taken to hold as many prompts as are requested.
        if options.limit is None:
            return None
        count = float(options.limit)
        responses = count * options.num_samples
        self._volumes[options.out] = _Volume({options.prompts: (count, responses)})
        machine = self._machine
        tokens = count * machine.prompt_tokens + responses * machine.response_tokens
        return self._forward(tokens, options.policy.policy_name)

    def _other(self, options: Any) -> _Cost | None:
        source = getattr(options, "rollouts", None)
        if source not in self._volumes:
            return None
        self._volumes[options.out] = self._volumes[source]
        return _Cost(0.0, 0.0)

    def _select(self, options: Any) -> _Cost | None:
        parts: dict[Path, tuple[float, float]] = {}
        for path in options.rollouts:
            if path not in self._volumes:
                return None
            for source, (prompts, responses) in self._volumes[path].parts.items():
                if options.responses is not None:
                    responses = min(responses, prompts * options.responses)
                before = parts.get(source, (0.0, 0.0))
                parts[source] = (max(prompts, before[0]), responses + before[1])
        for source, (prompts, responses) in parts.items():
            responses = prompts if options.one_response else responses
            parts[source] = (options.prompts * prompts, options.prompts * responses)
        self._volumes[options.out] = _Volume(parts)
        return _Cost(0.0, 0.0)

    def _math_shepherd(self, options: Any) -> _Cost | None:
        volume = self._volumes.get(options.graded)
        if volume is None:
            return None
        self._volumes[options.out] = volume
        machine = self._machine
        half = machine.response_tokens / 2
        length = machine.prompt_tokens + half + options.num_completions * half
        return self._forward(volume.responses * (machine.steps - 1) * length, options.policy.policy_name)

    def _train(self, options: Any) -> _Cost | None:
        self._trained[str(options.out)] = options.config
        volume = self._volumes.get(options.graded)
        return None if volume is None else self._training(options.config, volume)

    def _training(self, config: TrainConfig, volume: _Volume) -> _Cost:
        from stepcredit.objectives import get_objective

        objective = get_objective(config.objective)
        units, unit_length = volume.responses, self._length
        if objective.paired:
            most = (volume.responses / volume.prompts / 2) ** 2
            units, unit_length = volume.prompts * min(config.pairs_per_prompt, most), 2 * self._length
        planned = make_plan(
            config,
            PlanOptions(),
            Shape(parameters=self._parameters(None), layers=1, width=1),
            Workload(
                examples=round(volume.responses),
                units=round(units),
                unit_tokens=units * unit_length,
                example_tokens=volume.responses * self._length,
                mismatched=objective.needs_mismatched,
            ),
            tokens_per_forward=1,
        )
        return _Cost(float(planned.tokens), planned.training_flops + planned.reference_flops)

    def _autopsv(self, options: Any) -> _Cost | None:
        volume = self._volumes.get(options.graded)
        if volume is None:
            return None
        self._volumes[options.out] = volume
        return self._training(options.config, volume) + self._forward(volume.responses * self._length)

    def _score(self, options: Any) -> _Cost | None:
        volume = self._volumes.get(options.input)
        if volume is None:
            return None
        return self._forward(volume.responses * self._length * self._passes(options))

    def _search(self, options: Any) -> _Cost:
        count, how, machine = float(options.limit), options.search, self._machine
        drawn = count * how.width * (2 if how.strategy == "lookahead" else 1)
        self._volumes[options.out] = _Volume({options.prompts: (count, drawn)})
        tokens = count * machine.prompt_tokens + drawn * machine.response_tokens
        writing = self._forward(tokens, options.policy.policy_name)
        return writing + self._forward(tokens * self._passes(options))

    def _passes(self, options: Any) -> int:
        config = self._trained.get(options.prm)
        if options.reference_free or options.family not in ("auto", "implicit"):
            return 1
        if config is None:
            return 2 if options.reference is not None or options.family == "implicit" else 1
        return 2 if config.family == "implicit" and not config.reference_free else 1
