"""Step labels made without people: by completing prefixes, or from an outcome verifier's confidence."""

KINDS = ("soft", "hard", "log-mean-exp")
"""The kinds of Monte-Carlo labels; here, since ``--help`` lists them and must not wait for NumPy."""
