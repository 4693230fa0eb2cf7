"""Scores of one case: a value, the evidence for it, or unscored with the reason. Unscored is never averaged as 0."""
