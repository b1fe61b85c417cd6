"""Words and numbers as people read them."""


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share in [0, 1] as percent; a dash for None."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: 1 photo, 2 photos."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """Return a phrase with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def visible(text: str) -> str:
    """Return a text with control characters written out, so that none reaches a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
