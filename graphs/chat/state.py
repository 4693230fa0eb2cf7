"""State of the chat graph."""

from graphs.steps.outcome import Outcome


class ChatState(Outcome, total=False):
    """Nothing beyond the shared outcome: chat retrieves nothing and uses no tools."""
