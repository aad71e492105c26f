"""
Tokens of an answer become text: whole characters, no white space in front, and nothing from a stop string on.

What may be the beginning of a stop string is kept back until it is known. Knows nothing of HTTP.
"""

from collections.abc import Sequence

from colossi.data.tokenizer import Tokenizer


class Words:
    """The text of one answer as it comes."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), trim: bool = False) -> None:
        self._text = tokenizer.stream()
        self._stops = stops
        self._trim = trim  # white space in front: the chat template's
        self._kept = ""
        self.ended = False  # by a stop string

    def feed(self, token: int) -> str:
        """What can be said with this token."""
        return self._say(self._text.feed(token), last=False)

    def end(self) -> str:
        """What still waits, when no token will come."""
        return self._say(self._text.end(), last=True)

    def _say(self, piece: str, last: bool) -> str:
        if self.ended:
            return ""
        if self._trim:
            piece = piece.lstrip()
            self._trim = not piece
        text = self._kept + piece
        at = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if at >= 0:
            self.ended, self._kept = True, ""
            return text[:at]
        keep = 0 if last else max((_begun(text, stop) for stop in self._stops), default=0)
        self._kept = text[len(text) - keep :]
        return text[: len(text) - keep]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
