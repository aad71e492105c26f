"""Numbers as people read them: 3m12s, 4.2M, 1.3 GB. Knows no units but time and bytes."""


def duration(seconds: float) -> str:
    """The two largest units that matter: 0.41s, 12s, 3m12s, 4h05m, 12d03h."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.2g}s" if seconds < 0.995 else f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d{hours % 24:02}h"


def count(number: float) -> str:
    """Three digits and a letter: 950, 4.20M, 314B."""
    return _scaled(number, ("", "K", "M", "B", "T", "P"))


def size(nbytes: float) -> str:
    """Bytes, decimal: 512 B, 1.31 GB."""
    return _scaled(nbytes, (" B", " kB", " MB", " GB", " TB", " PB"))


def decimal(number: float, digits: int) -> str:
    """So many digits after the point, unless that gets too long: 1.2345, 1.2e+26."""
    return f"{number:.{digits}f}" if abs(number) < 1e5 else f"{number:.2g}"


def _scaled(number: float, units: tuple[str, ...]) -> str:
    power = 0
    while abs(number) >= 999.5 and power < len(units) - 1:
        number, power = number / 1000, power + 1
    digits = 0 if power == 0 or abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f}{units[power]}"
