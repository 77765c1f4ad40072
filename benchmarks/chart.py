"""A chart as SVG: CPU per delivery of each row, a bar each. By hand, for a dependency would be larger than it."""

from collections.abc import Mapping
from xml.sax.saxutils import escape

from benchmarks.measurement import Figures

_WIDTH, _LEFT, _RIGHT = 860, 170, 190
_BAR, _GAP, _TOP = 22, 8, 52
_SERVER, _NGINX, _TEXT, _GREY = "#2f6fb0", "#a9c6e4", "#222222", "#777777"


def chart(title: str, rows: Mapping[str, Figures]) -> str:
    """The chart."""
    scale = (_WIDTH - _LEFT - _RIGHT) / max((one.cpu_together for one in rows.values()), default=1.0)
    height = _TOP + len(rows) * (_BAR + _GAP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(12, 24, title, _TEXT, size=16),
        _text(12, 42, "µs of CPU per delivery; shorter is better", _GREY),
    ]
    for number, (name, one) in enumerate(rows.items()):
        y = _TOP + number * (_BAR + _GAP)
        own, proxy = one.cpu * scale, (one.proxy_cpu or 0.0) * scale
        parts.append(_text(_LEFT - 8, y + 15, name, _TEXT, anchor="end"))
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{own:.1f}" height="{_BAR}" fill="{_SERVER}"/>')
        if proxy:
            x = _LEFT + own
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{proxy:.1f}" height="{_BAR}" fill="{_NGINX}"/>')
        beside = f"{one.cpu_together:.1f}"
        if one.proxy_cpu is not None:
            beside += f" ({one.cpu:.1f} + {one.proxy_cpu:.1f} nginx)"
        parts.append(_text(_LEFT + own + proxy + 8, y + 15, beside, _TEXT))
    parts.append(_text(12, height - 10, "dark: the server; light: nginx in front of it", _GREY))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, colour: str, size: int = 13, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="{size}">{escape(text)}</text>'
