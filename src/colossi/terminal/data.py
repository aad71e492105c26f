"""What became of a source of data, in a line or two."""

from colossi.data.corpus import SourceReport
from colossi.terminal.numerals import count


def describe(source: SourceReport) -> str:
    """Documents, tokens and windows; what was skipped, cut or held out, with the first reasons."""
    said = [f"{count(source.documents)} documents", f"{count(source.tokens)} tokens"]
    said += [f"{count(source.windows)} windows"]
    said += [f"{source.left_out:,} items held out or without an answer"] if source.left_out else []
    said += [f"{source.cut:,} chats cut at the window"] if source.cut else []
    said += [f"{source.skipped:,} skipped"] if source.skipped else []
    lines = [f"data  {source.name}: {', '.join(said)}"]
    lines += [f"      skipped {complaint}" for complaint in source.complaints if source.skipped]
    return "\n".join(lines) + "\n"
