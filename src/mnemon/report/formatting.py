"""Numbers as people read them."""

import math


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with `digits` decimals; "–" for None and nan."""
    if value is None or math.isnan(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def shown(value: float | None, unit: str = "") -> str:
    """A value in a figure's unit: 0.123, 12 %, 12.3 (percent), 4.0 kB, 1.5 s, 540,672."""
    if value is None or math.isnan(value):
        return "–"
    if unit == "share":
        return f"{100 * value:.0f} %"
    if unit == "percent":
        return number(100 * value, 1)
    if unit == "bytes":
        return _bytes(value)
    if unit == "seconds":
        return f"{value:.0f} s" if abs(value) >= 10 else f"{value:.2g} s"
    return f"{value:,.0f}" if unit == "count" else number(value)


def _bytes(value: float) -> str:
    for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size:
            return f"{value / size:.1f} {name}"
    return f"{value:.0f} B"
