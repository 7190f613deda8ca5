"""Pieces of pages in Markdown."""


def table_line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text in which Markdown finds nothing to format."""
    return "".join(f"\\{character}" if character in r"\`*_[]<>|#~$&" else character for character in text)
