"""Charts as SVG: lines over labelled steps, readable on light and dark pages.

The same figures give the same bytes, so a page's history shows what was measured anew. Steps stand at equal
distances whatever their values: series go from nothing to a million, which no scale of numbers shows.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 18, 64, 52
_COLOURS = ("#4c78c8", "#d9662b", "#2f9e63", "#a860b8", "#b08a1e", "#1f9db0")
"""Of lines: of medium brightness, so that they stand out on white and on black."""
_LOGARITHMIC = 50
"""From so much between the smallest and the largest figure on, equal ratios are equal distances."""
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.t{font-size:14px;font-weight:bold}.g{stroke:#8884;stroke-width:1}"
    ".l{fill:none;stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)


@dataclass(frozen=True, slots=True)
class Dot:
    """A figure at a step: the median, and how far figures went."""

    step: int
    """Which of the chart's steps."""
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """One contender."""

    title: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn."""

    title: str
    across: str
    """What the steps are, with its unit."""
    up: str
    """What the figures are, with their unit."""
    steps: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From figures to heights."""

    low: float
    high: float
    logarithmic: bool

    def height(self, figure: float) -> float:
        """Pixels from the top."""
        if self.logarithmic:
            figure = max(figure, self.low)
            share = math.log(figure / self.low) / math.log(self.high / self.low)
        else:
            share = (figure - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def ticks(self) -> list[float]:
        """Round figures from the lowest to the highest."""
        if self.logarithmic:
            decades = round(math.log10(self.high / self.low))
            return [self.low * 10**decade for decade in range(decades + 1)]
        step = _round_step((self.high - self.low) / 5)
        return [self.low + number * step for number in range(int((self.high - self.low) / step + 1e-9) + 1)]


def draw(chart: Chart) -> str:
    """The whole file."""
    scale = _scale([figure for line in chart.lines for dot in line.dots for figure in (dot.low, dot.high)])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(chart.title)}">',
        f"<style>{_STYLE}</style>",
        _text(_LEFT, 20, chart.title, "t"),
        *_axes(chart, scale),
        *_legend(chart.lines),
    ]
    for number, line in enumerate(chart.lines):
        parts += _line(line, _COLOURS[number % len(_COLOURS)], scale, len(chart.steps))
    return "\n".join([*parts, "</svg>", ""])


def _scale(figures: Sequence[float]) -> _Scale:
    lowest, highest = min(figures), max(figures)
    if lowest > 0 and highest / lowest >= _LOGARITHMIC:
        return _Scale(10 ** math.floor(math.log10(lowest)), 10 ** math.ceil(math.log10(highest)), True)
    bottom, top = min(0.0, lowest), max(highest, 0.0)
    step = _round_step((top - bottom or 1.0) / 5)
    return _Scale(math.floor(bottom / step) * step, (math.ceil(top / step) or 1) * step, False)


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, not less than that."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _across(step: int, steps: int) -> float:
    return _LEFT + (step + 0.5) * (WIDTH - _LEFT - _RIGHT) / steps


def _axes(chart: Chart, scale: _Scale) -> Iterator[str]:
    for tick in scale.ticks():
        height = scale.height(tick)
        yield (
            f'<line class="g" x1="{_LEFT}" y1="{height:.1f}" x2="{WIDTH - _RIGHT}" y2="{height:.1f}"/>'
            + _text(_LEFT - 8, height + 4, f"{tick:,.6g}", anchor="end")
        )
    for number, step in enumerate(chart.steps):
        yield _text(_across(number, len(chart.steps)), HEIGHT - _BOTTOM + 20, step, anchor="middle")
    yield _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, chart.across, anchor="middle")
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    turned = f' transform="rotate(-90 16 {middle:.1f})"'
    yield _text(16, middle, chart.up, anchor="middle", more=turned)


def _legend(lines: Sequence[Line]) -> Iterator[str]:
    at = float(_LEFT)
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        yield f'<rect x="{at:.0f}" y="34" width="12" height="12" rx="2" fill="{colour}"/>'
        yield _text(at + 17, 44, line.title)
        at += 30 + 6.6 * len(line.title)


def _line(line: Line, colour: str, scale: _Scale, steps: int) -> Iterator[str]:
    places = [(_across(dot.step, steps), dot) for dot in line.dots]
    path = " ".join(f"{x:.1f},{scale.height(dot.median):.1f}" for x, dot in places)
    yield f'<polyline class="l" stroke="{colour}" points="{path}"/>'
    for x, dot in places:
        low, middle, high = (scale.height(figure) for figure in (dot.low, dot.median, dot.high))
        yield (
            f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="{colour}"/>'
            f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="3.5" fill="{colour}"/>'
        )


def _text(x: float, y: float, text: str, style: str = "", *, anchor: str = "start", more: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
