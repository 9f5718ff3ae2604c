"""Which policy draws responses and how: the options that commands which sample have in common."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stepcredit.chat_templates import parse_arguments
from stepcredit.checkpoints import (
    LoadOptions,
    content_hash,
    load_model,
    load_tokenizer,
    resolve,
    settings_hash,
    template_hash,
    tokenizer_hash,
)
from stepcredit.errors import UserError
from stepcredit.options import check_at_least_one, option
from stepcredit.servers import ServerLimits
from stepcredit.types import Generator, Sampling

GENERATORS = ("transformers", "vllm", "openai", "fake")

ADDED_SETTINGS = ("policy.files", "sampling.keep_stop")
"""What manifests of earlier versions do not record; see :class:`~stepcredit.runs.Manifest`."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are drawn."""

    temperature: float = option("sampling temperature; 0 always takes the likeliest token", default=1.0)
    top_p: float = option(
        "sample from the smallest set of tokens that reaches this probability; 1 is off", default=1.0
    )
    top_k: int = option("sample from this many likeliest tokens; 0 is off", default=0)
    min_p: float = option(
        "drop tokens whose probability is below this share of the likeliest one's; 0 is off", default=0.0
    )
    max_new_tokens: int = option("number of tokens after which a response is cut off", default=1024)
    stop: tuple[str, ...] = option("text that ends a response (may be repeated)", default=())

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (0.0, math.inf),
            "top_p": (math.ulp(0.0), 1.0),
            "top_k": (0, math.inf),
            "min_p": (0.0, 1.0),
            "max_new_tokens": (1, math.inf),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= most or value == math.inf:
                bounds = f"at least {least:g}" if most == math.inf else f"above 0 and at most {most:g}"
                if name == "min_p":
                    bounds = "between 0 and 1"
                raise UserError(f"must be {bounds}, got {value:g}", where="--" + name.replace("_", "-"))
        if "" in self.stop:
            raise UserError("an empty text would end every response", where="--stop")

    def sampling(self, seed: int) -> Sampling:
        """As the generators take it."""
        return Sampling(**asdict(self), seed=seed)


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions:
    """The policy, and where it runs."""

    model: str | None = option(
        "directory or hub name of the policy; with --generator openai, the model's name on the server",
        default=None,
    )
    generator: str = option(
        "what runs the policy: transformers or vllm on this machine, an OpenAI-compatible server (openai), "
        "or nothing (fake: made-up responses, to try a pipeline without a model)",
        default="transformers",
        choices=GENERATORS,
    )
    policy_name: str | None = option("name written to each rollout (default: the model's)", default=None)
    batch_samples: int | None = option(
        "largest number of samples that run together (transformers); default is 2048, or what fits",
        default=None,
        metavar="N",
    )
    batch_tokens: int | None = option(
        "largest number of tokens in the key-value cache (transformers); default is 262144, or what fits",
        default=None,
        metavar="N",
    )
    base_url: str | None = option(
        "address of the server, e.g. http://localhost:8000/v1 (openai)", default=None
    )
    api: str = option(
        "chat: the server formats the prompts; completions: they are formatted here, and "
        "responses can be continued (openai)",
        default="chat",
        choices=("chat", "completions"),
    )
    tokenizer: str | None = option(
        "directory or hub name of the tokenizer for --api completions (default: the model's)", default=None
    )
    request_seeds: bool = option(
        "send a seed with each request; off for servers that accept none, such as vLLM on a CPU (openai)",
        default=True,
    )
    concurrency: int = option("number of requests in flight at the same time (openai)", default=16)
    timeout: float = option("seconds within which a whole answer must arrive (openai)", default=600.0)
    retries: int = option("how many times a failed request is retried (openai)", default=8)
    tensor_parallel: int = option("accelerators that share one copy of the model (vllm)", default=1)
    data_parallel: int = option("copies of the model (vllm)", default=1)
    load: LoadOptions = field(default_factory=LoadOptions)

    def __post_init__(self) -> None:
        if self.model is None and self.generator != "fake":
            raise UserError("--model is missing", hint="name the policy's directory or hub name")
        check_at_least_one(
            self, "batch_samples", "batch_tokens", "concurrency", "tensor_parallel", "data_parallel"
        )

    @property
    def name(self) -> str:
        """The policy's name in rollouts."""
        if self.policy_name is not None:
            return self.policy_name
        if self.model is None:
            return self.generator
        is_path = self.generator != "openai" and Path(self.model).is_dir()
        return Path(self.model).resolve().name if is_path else self.model

    def identity(self) -> dict[str, Any]:
        """Everything about the policy that decides what is drawn, for the manifest's settings."""
        known: dict[str, Any] = {"generator": self.generator, "policy": self.name}
        if self.generator == "fake":
            return known
        if self.generator == "openai":
            known |= {"model": self.model, "api": self.api, "tokenizer": self.tokenizer}
            known |= self.load.chat.determining()
            return known if self.request_seeds else known | {"request_seeds": False}
        directory, also = self.directory(), self.load.unsafe_patterns
        tokenizer = load_tokenizer(
            directory, trust_remote_code=self.load.trust_remote_code, chat=self.load.chat
        )
        return known | {
            "weights": content_hash(directory, also=also),
            "tokenizer": tokenizer_hash(tokenizer),
            "template": template_hash(tokenizer),
            "files": settings_hash(directory),
            "dtype": self.load.dtype,
            **self.load.chat.determining(),
        }

    def directory(self) -> Path:
        """Where the policy's files lie here."""
        assert self.model is not None
        return resolve(self.model, revision=self.load.revision, also=self.load.unsafe_patterns)


def make_generator(options: GeneratorOptions, *, continues: bool = False) -> Generator:
    """Load the policy.

    Args:
        continues: Most requests go on from one another or from a response that it drew before, so a local
            model keeps what it has read and drawn.

    Raises:
        CheckpointError: The model cannot be loaded or does not fit the generator.
        MissingExtraError: What runs it is not installed.
    """
    if options.generator == "fake":
        from stepcredit.generators.fake import FakeGenerator

        return FakeGenerator(name=options.name)
    if options.generator == "openai":
        return _openai(options)
    if options.generator == "vllm":
        return _vllm(options)
    return _transformers(options, continues=continues)


def _vllm(options: GeneratorOptions) -> Generator:
    from stepcredit.generators.vllm import EngineSettings, VLLMGenerator

    load, directory = options.load, options.directory()
    tokenizer = load_tokenizer(directory, trust_remote_code=load.trust_remote_code, chat=load.chat)
    return VLLMGenerator(
        str(directory),
        tokenizer,
        name=options.name,
        tokenizer_hash=tokenizer_hash(tokenizer),
        model_parameters=_count_parameters(directory),
        settings=EngineSettings(
            tensor_parallel=options.tensor_parallel,
            data_parallel=options.data_parallel,
            dtype=load.dtype,
            trust_remote_code=load.trust_remote_code,
        ),
    )


def _count_parameters(directory: Path) -> int:
    """Parameters in a checkpoint's safetensors files, from their headers."""
    from safetensors import safe_open

    count = 0
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return count


def _openai(options: GeneratorOptions) -> Generator:
    from stepcredit.generators.openai import OpenAIGenerator

    prompt_format = None
    if options.api == "completions":
        from stepcredit.generators.prompts import PromptFormat

        source = options.tokenizer or str(options.model)
        prompt_format = PromptFormat(
            load_tokenizer(source, trust_remote_code=options.load.trust_remote_code, chat=options.load.chat)
        )
    return OpenAIGenerator(
        str(options.model),
        base_url=options.base_url,
        prompt_format=prompt_format,
        name=options.name,
        limits=ServerLimits(options.concurrency, options.timeout, options.retries),
        seeds=options.request_seeds,
        template_arguments=parse_arguments(options.load.chat.template_arg),
    )


def _transformers(options: GeneratorOptions, *, continues: bool) -> Generator:
    from stepcredit.generators.limits import BatchLimits
    from stepcredit.generators.transformers import TransformersGenerator
    from stepcredit.keyvalues import PrefixStore
    from stepcredit.logprobs.float32_products import fit_to_processor

    assert options.model is not None
    tokenizer = load_tokenizer(
        options.directory(), trust_remote_code=options.load.trust_remote_code, chat=options.load.chat
    )
    model = fit_to_processor(load_model(options.model, options.load))
    most, fitting = BatchLimits(), BatchLimits.fitting(model)
    # What is kept takes as much memory again as what runs.
    fitting_tokens = fitting.cached_tokens // 2 if continues else fitting.cached_tokens
    limits = BatchLimits(
        samples=options.batch_samples or min(most.samples, fitting.samples),
        cached_tokens=options.batch_tokens or max(1, min(most.cached_tokens, fitting_tokens)),
    )
    return TransformersGenerator(
        model,
        tokenizer,
        name=options.name,
        tokenizer_hash=tokenizer_hash(tokenizer),
        limits=limits,
        store=PrefixStore(limits.cached_tokens) if continues else None,
    )
