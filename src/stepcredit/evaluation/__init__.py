"""How good a reward model is: picking and voting, finding wrong steps, and what may be behind the figures."""
