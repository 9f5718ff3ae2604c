from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepcredit.logprobs.prefixes import batches_by_prefix, common_length, prefix_tree

sequences_of_few_tokens = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), min_size=1, max_size=12
)


def test_prompt_and_responses() -> None:
    prompt = tuple(range(10, 30))
    tree = prefix_tree([(*prompt, 1, 2), (*prompt, 3), prompt])
    assert tree.segments == (prompt, (1, 2), (3,))
    assert tree.parents == (-1, 0, 0)
    assert tree.leaves == (1, 2, 0)
    assert tree.path(1) == (0, 1)


def test_equal_sequences_end_at_one_node() -> None:
    tree = prefix_tree([(1, 2, 3), (4, 5), (1, 2, 3)])
    assert tree.leaves == (0, 1, 0)
    assert tree.num_tokens == 5


def test_a_saving_below_the_threshold_is_not_worth_a_node() -> None:
    sequences = [(1, 2, 3, 4), (1, 2, 5, 6)]
    assert prefix_tree(sequences, min_saved=2).segments == ((1, 2), (3, 4), (5, 6))
    assert prefix_tree(sequences, min_saved=3).segments == ((1, 2, 3, 4), (1, 2, 5, 6))


def test_a_long_branch_below_a_short_one_is_found() -> None:
    branch = tuple(range(100, 120))
    tree = prefix_tree([(1, *branch, 7), (1, *branch, 8), (1, 9)], min_saved=16)
    assert set(tree.segments) == {(1, *branch), (7,), (8,), (1, 9)}


@given(sequences_of_few_tokens, st.integers(1, 20))
def test_paths_spell_the_sequences(sequences: list[tuple[int, ...]], min_saved: int) -> None:
    tree = prefix_tree(sequences, min_saved=min_saved)
    for sequence, leaf in zip(sequences, tree.leaves, strict=True):
        assert sum((tree.segments[node] for node in tree.path(leaf)), ()) == sequence
    assert all(parent < node for node, parent in enumerate(tree.parents))
    assert all(tree.segments)
    assert tree.num_tokens <= sum(len(sequence) for sequence in set(sequences))


@given(sequences_of_few_tokens)
def test_with_no_threshold_no_prefix_is_computed_twice(sequences: list[tuple[int, ...]]) -> None:
    prefixes = {sequence[: end + 1] for sequence in sequences for end in range(len(sequence))}
    assert prefix_tree(sequences, min_saved=1).num_tokens == len(prefixes)


@given(sequences_of_few_tokens, st.integers(1, 30))
def test_batches_hold_every_sequence_once_within_the_budget(
    sequences: list[tuple[int, ...]], budget: int
) -> None:
    batches = list(batches_by_prefix(sequences, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(sequences)))
    for batch in batches:
        tokens = prefix_tree([sequences[index] for index in batch], min_saved=1).num_tokens
        assert tokens <= budget or len({sequences[index] for index in batch}) == 1


def test_common_length() -> None:
    assert common_length((1, 2, 3), (1, 2, 4)) == 2
    assert common_length((1, 2), (1, 2, 4)) == 2
    assert common_length((), (1,)) == 0
