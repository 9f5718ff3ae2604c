"""Step labels made without people: by completing prefixes, or from an outcome verifier's confidence."""
