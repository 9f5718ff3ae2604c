"""Files of prompts, rollouts and scores: schema-checked reading and writing, and the formats of others."""

from stepcredit.data.files import (
    Records,
    UniqueIds,
    finish_lines,
    read_prompts,
    read_rollouts,
    read_scores,
    write_rows,
    write_rows_into,
)
from stepcredit.data.foreign import FORMATS, named_format
from stepcredit.data.formats import parse_columns, read_as, read_rollouts_as
from stepcredit.data.records import prompt_from_json, prompt_to_json, rollout_from_json, rollout_to_json
from stepcredit.data.scores import is_score, score_from_json, score_to_json
from stepcredit.data.sources import count_rows

__all__ = [
    "FORMATS",
    "Records",
    "UniqueIds",
    "count_rows",
    "finish_lines",
    "is_score",
    "named_format",
    "parse_columns",
    "prompt_from_json",
    "prompt_to_json",
    "read_as",
    "read_prompts",
    "read_rollouts",
    "read_rollouts_as",
    "read_scores",
    "rollout_from_json",
    "rollout_to_json",
    "score_from_json",
    "score_to_json",
    "write_rows",
    "write_rows_into",
]
