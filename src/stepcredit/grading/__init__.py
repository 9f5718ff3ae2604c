"""Does the response's answer equal the reference answer?"""

from stepcredit.grading.base import CRASHED, TIMEOUT, UNREAD, Grade, Grader, GradingItem
from stepcredit.grading.registry import GRADERS, make_grader

__all__ = ["CRASHED", "GRADERS", "TIMEOUT", "UNREAD", "Grade", "Grader", "GradingItem", "make_grader"]
