"""What docstrings refer to is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOTS = (REPOSITORY / "src", REPOSITORY / "benchmarks")
REFERENCE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?(stepcredit[\w.]*)`")


@cache
def names_in(file: Path) -> dict[str, ast.stmt]:
    return names_of(ast.parse(file.read_text(encoding="utf-8")).body)


def names_of(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    names: dict[str, ast.stmt] = {}
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name: statement for alias in statement.names}
        elif isinstance(statement, ast.Assign):
            names |= {target.id: statement for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names[statement.target.id] = statement
    return names


def is_there(reference: str) -> bool:
    parts = reference.split(".")
    for root in ROOTS:
        for length in range(len(parts), 0, -1):
            path = root.joinpath(*parts[:length])
            files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
            if files:
                return has(names_in(files[0]), parts[length:])
    return False


def has(names: dict[str, ast.stmt], parts: list[str]) -> bool:
    if not parts:
        return True
    statement = names.get(parts[0])
    if len(parts) == 1 or not isinstance(statement, ast.ClassDef):
        return statement is not None
    return has(names_of(statement.body), parts[1:])


def test_a_name_that_is_gone_is_noticed() -> None:
    assert is_there("stepcredit.logprobs.packing.TokenBatch.num_computed")
    assert not is_there("stepcredit.logprobs.packing.enable_packing")
    assert not is_there("stepcredit.logprobs.packing.TokenBatch.gone")
    assert not is_there("stepcredit.gone.TokenBatch")


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
def test_references_of_docstrings_lead_somewhere(root: Path) -> None:
    references = {
        f"{file.relative_to(REPOSITORY)}: {reference}"
        for file in root.rglob("*.py")
        for reference in REFERENCE.findall(file.read_text(encoding="utf-8"))
        if not is_there(reference)
    }
    assert not references
