"""Pieces of pages in Markdown."""

# Of marks that turn the direction of a text (embeddings and overrides, isolates), what ends each; one too many does
# nothing.
CLOSERS = dict.fromkeys("\u202a\u202b\u202d\u202e", "\u202c") | dict.fromkeys("\u2066\u2067\u2068", "\u2069")


def table_line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text in which Markdown finds nothing to format."""
    return "".join(f"\\{character}" if character in r"\`*_[]<>|#~$&" else character for character in closed(text))


def closed(text: str) -> str:
    """Text that leaves the direction of what follows on its line alone, though a mark that turns it be open in it."""
    return text + "".join(CLOSERS.get(character, "") for character in reversed(text))
