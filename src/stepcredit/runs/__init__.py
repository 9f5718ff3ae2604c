"""What every run leaves behind: atomic and resumable outputs, a manifest, a ledger, progress."""

from stepcredit.runs.beside import beside, may_fork
from stepcredit.runs.hashing import hash_bytes, hash_file, hash_json
from stepcredit.runs.ledger import Ledger
from stepcredit.runs.lines import ResumableLines
from stepcredit.runs.locks import locked
from stepcredit.runs.manifest import Manifest, manifest_path, read_manifest, run_facts
from stepcredit.runs.outputs import (
    Output,
    atomic_directory,
    atomic_path,
    check_keeps_inputs,
    check_leads_somewhere,
    check_output,
    write_json,
    write_text,
)
from stepcredit.runs.progress import Progress, warn
from stepcredit.runs.workers import worker_pool

__all__ = [
    "Ledger",
    "Manifest",
    "Output",
    "Progress",
    "ResumableLines",
    "atomic_directory",
    "atomic_path",
    "beside",
    "check_keeps_inputs",
    "check_leads_somewhere",
    "check_output",
    "hash_bytes",
    "hash_file",
    "hash_json",
    "locked",
    "manifest_path",
    "may_fork",
    "read_manifest",
    "run_facts",
    "warn",
    "worker_pool",
    "write_json",
    "write_text",
]
