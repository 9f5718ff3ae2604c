"""The keywords of each function, for editors and type checkers.

They are the options of the commands: their records say what each means, and the type of one that is added
there is added here (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Required, TypedDict

from stepcredit.api.sources import PathText


class LoadKeywords(TypedDict, total=False):
    """How models are loaded."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    device: str
    device_map: str | None
    attention: str | None
    trust_remote_code: bool
    allow_pickle: bool
    revision: str | None
    template_arg: str | Sequence[str]
    template_date: str | None
    boundary: Literal["together", "apart"] | None
    overwrite: bool


class PolicyKeywords(LoadKeywords, total=False):
    """The policy, and how its tokens are drawn."""

    limit: int | None
    seed: int
    model: PathText | None
    generator: Literal["transformers", "vllm", "openai", "fake"]
    policy_name: str | None
    batch_samples: int | None
    batch_tokens: int | None
    base_url: str | None
    api: Literal["chat", "completions"]
    tokenizer: str | None
    request_seeds: bool
    concurrency: int
    timeout: float
    retries: int
    tensor_parallel: int
    data_parallel: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_new_tokens: int


class RewardKeywords(LoadKeywords, total=False):
    """How steps are rewarded."""

    family: str
    reference: PathText | None
    reference_free: bool
    reference_floor: float
    beta: float | None
    convention: Literal["clean", "processbench", "best-of-n"]
    step_separator: str | None
    classifier_server: str | None
    judge: str | None
    judge_generator: str
    judge_samples: int | None
    cache: PathText | None


class ScorerKeywords(RewardKeywords, total=False):
    """The reward model, and how it scores."""

    prm: Required[PathText]
    steps: str | None
    policy_server: str | None
    reference_server: str | None
    server_interface: Literal["echo", "prompt-logprobs", "token-ids"]
    max_step_tokens: int | None
    aggregate: str | None
    html: PathText | None


class SampleKeywords(PolicyKeywords, total=False):
    """Of ``stepcredit.sample``."""

    num_samples: int
    stop: str | Sequence[str]
    system_prompt: str | None
    few_shot: PathText | None
    shard: str | None
    column: str | Sequence[str]
    subset: str | None
    task_size: int
    task_seed: int
    task_setting: str | Sequence[str]
    ray: str | None
    ray_gpus: float
    retry_failed: bool
    skip_invalid: bool


class GraderKeywords(TypedDict, total=False):
    """How answers are graded."""

    answer_pattern: str | None
    tolerance: float | None
    time_limit: float | None
    memory_limit: int | None
    allow_unsafe_code: bool
    num_workers: int | None


class GradeKeywords(GraderKeywords, total=False):
    """Of ``stepcredit.grade``."""

    format: str
    regrade: bool
    ray: str | None
    skip_invalid: bool
    overwrite: bool


class TrainKeywords(LoadKeywords, total=False):
    """Of ``stepcredit.train``."""

    model: Required[PathText]
    reference: PathText | None
    family: Literal["implicit", "value-head", "token-head", "math-shepherd", "rlhflow", "token-classifier"]
    objective: Literal[
        "ce",
        "dpo",
        "kto",
        "nca",
        "ipo",
        "bco",
        "bco-pair",
        "pair-margin",
        "ce-prefix",
        "prefix",
        "token-ce",
        "step-ce",
        "label-ce",
    ]
    beta: float
    right_weight: float
    wrong_weight: float
    prefix_weight: float
    prefix_margin: float
    prefix_beta: float
    pair_scale: float
    pair_margin: float
    balance: Literal["none", "dataset", "instruction"]
    pairs_per_prompt: int
    steps: str
    step_separator: str | None
    last_step_only: bool
    max_step_tokens: int | None
    max_tokens: int | None
    over_long: Literal["drop", "truncate"]
    learning_rate: float
    batch_size: int
    group_prompts: bool
    epochs: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup: float
    final_learning_rate: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    max_grad_norm: float
    lora_rank: int
    lora_alpha: int | None
    lora_dropout: float
    lora_targets: str
    precision: Literal["float32", "bfloat16"]
    reference_free: bool
    live_reference: bool
    tokens_per_forward: int | None
    layout: Literal["auto", "padded", "packed"]
    gradient_checkpointing: bool
    eval_every: int | None
    keep_best: bool
    patience: int | None
    save_every: int | None
    log_every: int
    report_to: Literal["none", "tensorboard", "wandb", "trackio"]
    dry_run: bool
    devices: int
    device_memory: float | None
    device_flops: float
    utilisation: float
    model_parameters: float | None
    model_layers: int | None
    model_width: int | None
    examples: int | None
    mean_tokens: float | None
    cache: PathText | None
    push_to_hub: str | None
    hub_private: bool
    seed: int
    skip_invalid: bool


class ScoreKeywords(ScorerKeywords, total=False):
    """Of ``stepcredit.score``."""

    format: str
    tokens: bool
    html_rows: int
    html_ids: str | Sequence[str]
    ray: str | None
    ray_gpus: float
    skip_invalid: bool


class SearchKeywords(PolicyKeywords, ScorerKeywords, GraderKeywords, total=False):
    """Of ``stepcredit.search``."""

    strategy: Literal["best-of-n", "weighted-best-of-n", "beam", "dvts", "particle", "lookahead"]
    width: int
    expand: int
    depth: int
    budget: int | None
    worth: Literal["value", "min", "last", "mean"]
    softmax_temperature: float
    lookahead: int
    keep: Literal["all", "chosen"]
    grader: str
    state: bool


class BestOfNKeywords(TypedDict, total=False):
    """Of ``stepcredit.evaluate_best_of_n``."""

    n: int | Sequence[int]
    aggregate: str
    weighted: str | Sequence[str]
    first: bool
    dev_fraction: float | None
    title: str
    draws: int
    resamples: int
    seed: int
    skip_invalid: bool
    overwrite: bool


class StepKeywords(RewardKeywords, total=False):
    """Of ``stepcredit.evaluate_steps``."""

    title: str
    draws: int
    seed: int
    skip_invalid: bool
    format: str
