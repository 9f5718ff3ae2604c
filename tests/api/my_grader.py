"""A user's own grader."""


def ends_with_answer(response: str, answer: str) -> bool:
    return response.endswith("#" + answer)
