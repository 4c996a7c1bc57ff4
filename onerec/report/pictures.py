"""Pictures as SVG text: pure functions of their arguments, the same bytes every time.

Every picture has an opaque light background, so it reads on a light page and on a dark one. Axis
labels carry the unit. Matplotlib is imported on first use and never touches its global state.
"""

import base64
import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onerec.markdown import plain

MAX_POINTS = 400
"""A longer series is thinned evenly to this many points: a picture stays below 60 kB."""

BINS = 30
"""Bins of a histogram."""

WIDTH = 6.4
"""Inches; a picture is 461 points wide."""

COLOURS = ("#3465a4", "#d9722e", "#3d8f5f", "#b5483d", "#7a5ca8", "#6f6f6f", "#b8922b", "#2a8c9a")
INK, GRID, PAPER = "#24292f", "#d8dce1", "#ffffff"


def line_chart(
    series: Mapping[str, Sequence[float]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    x: Sequence[float] | None = None,
) -> str:
    """Lines over a common axis, e.g. a loss per epoch.

    Args:
        series: Name of each line, and its values; NaN leaves a gap. Lengths may differ.
        title: Above the picture.
        x_label: With unit, e.g. `epoch`.
        y_label: With unit, e.g. `loss (nats per token)`.
        x: Positions; 1, 2, 3, ... if not given.

    Returns:
        SVG text.
    """

    def draw(axes: Any) -> None:
        for colour, (name, values) in zip(_colours(series), series.items(), strict=True):
            places = list(x[: len(values)]) if x is not None else list(range(1, len(values) + 1))
            kept = _thin(len(values))
            axes.plot(
                [places[i] for i in kept],
                [float(values[i]) for i in kept],
                color=colour,
                label=name,
                linewidth=1.8,
                marker="o" if len(values) <= 20 else None,
                markersize=3.5,
            )
        _whole_numbers(axes, [len(v) for v in series.values()] if x is None else [])
        _legend(axes, len(series))

    return _picture(draw, title, x_label, y_label, empty=not any(map(len, series.values())))


def bar_chart(
    values: Mapping[str, float | tuple[float, float, float]],
    title: str,
    value_label: str = "",
) -> str:
    """Horizontal bars, one per name, the first on top; a whisker where there is an interval.

    Args:
        values: A number, or (mean, low, high), per name. NaN is drawn as an absent bar.
        title: Above the picture.
        value_label: What the numbers are, with unit.

    Returns:
        SVG text.
    """

    def draw(axes: Any) -> None:
        names = list(values)
        bars = [
            v if isinstance(v, tuple | list) else (v, math.nan, math.nan) for v in values.values()
        ]
        means = [float(v[0]) for v in bars]
        axes.barh(range(len(names)), means, color=COLOURS[0], height=0.62)
        for row, (mean, low, high) in enumerate(bars):
            if not (math.isnan(low) or math.isnan(high)):
                axes.plot([low, high], [row, row], color=INK, linewidth=1.6)
            ends = [v for v in (mean, high, 0.0) if not math.isnan(v)]
            axes.annotate(
                "n/a" if math.isnan(mean) else _short(mean),
                (max(ends), row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)

    height = 1.1 + 0.34 * max(len(values), 1)
    return _picture(draw, title, value_label, "", empty=not values, height=height)


def histogram(
    values: Sequence[float] | Mapping[str, Sequence[float]],
    title: str,
    x_label: str,
    y_label: str = "count",
) -> str:
    """Distribution of one or several samples over common bins, finite values only.

    Args:
        values: A sample, or a sample per name.
        title: Above the picture.
        x_label: What was measured, with unit.
        y_label: What is counted.

    Returns:
        SVG text.
    """
    import numpy as np

    named = values if isinstance(values, Mapping) else {"": values}
    samples = {name: np.asarray(sample, dtype=float) for name, sample in named.items()}
    samples = {name: sample[np.isfinite(sample)] for name, sample in samples.items()}
    everything = np.concatenate([*samples.values(), np.empty(0)])

    def draw(axes: Any) -> None:
        edges = np.histogram_bin_edges(everything, bins=BINS)
        for colour, (name, sample) in zip(_colours(samples), samples.items(), strict=True):
            counts, _ = np.histogram(sample, edges)
            axes.stairs(
                counts, edges, fill=True, color=colour, alpha=0.75 / len(samples) + 0.25, label=name
            )
        axes.set_ylim(bottom=0)
        _legend(axes, len(samples))

    return _picture(draw, title, x_label, y_label, empty=not len(everything))


def funnel(
    steps: Mapping[str, float], title: str, value_label: str = "number, and its share of the first"
) -> str:
    """Centred bars of what is left after each step, with its share of the first.

    Args:
        steps: Count left, per step, in order.
        title: Above the picture.
        value_label: What is counted.

    Returns:
        SVG text.
    """

    def draw(axes: Any) -> None:
        counts = [float(v) for v in steps.values()]
        first = max(counts[0], 1e-12)
        axes.barh(
            range(len(counts)),
            counts,
            left=[-c / 2 for c in counts],
            color=[COLOURS[0]],
            height=0.7,
            alpha=0.85,
        )
        for row, count in enumerate(counts):
            axes.text(
                max(first, *counts) * 0.54,
                row,
                f"{count:,.0f}  ({count / first:.0%})",
                va="center",
                fontsize=8.5,
            )
        axes.set_yticks(range(len(counts)), list(steps))
        axes.set_ylim(len(counts) - 0.4, -0.6)
        axes.set_xlim(-max(first, *counts) * 0.52, max(first, *counts) * 0.85)
        axes.set_xticks([])
        axes.grid(visible=False)

    height = 0.9 + 0.36 * max(len(steps), 1)
    return _picture(draw, title, value_label, "", empty=not steps, height=height)


def scatter(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    diagonal: bool = False,
) -> str:
    """Points in groups, e.g. predicted against observed rates.

    Args:
        points: (x values, y values) per group; a large group is thinned evenly.
        title: Above the picture.
        x_label: With unit.
        y_label: With unit.
        diagonal: Draw y = x, what perfect calibration looks like.

    Returns:
        SVG text.
    """

    def draw(axes: Any) -> None:
        for colour, (name, (xs, ys)) in zip(_colours(points), points.items(), strict=True):
            kept = _thin(len(xs), max(2, MAX_POINTS // 2 // len(points)))
            axes.plot(
                [float(xs[i]) for i in kept],
                [float(ys[i]) for i in kept],
                linestyle="none",
                marker="o",
                markersize=4 if len(kept) <= 100 else 2.5,
                color=colour,
                alpha=0.8,
                label=name,
            )
        if diagonal:
            low = min(axes.get_xlim()[0], axes.get_ylim()[0])
            high = max(axes.get_xlim()[1], axes.get_ylim()[1])
            axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="--")
        _legend(axes, len(points))

    empty = not any(len(xs) for xs, _ in points.values())
    return _picture(draw, title, x_label, y_label, empty=empty)


def svg_markdown(svg: str) -> str:
    """A picture as Markdown with the SVG inside, for `MetadataValue.md`."""
    encoded = base64.b64encode(svg.encode()).decode()
    title = re.match(r'<svg role="img" aria-label="([^"]*)"', svg)
    text = plain(html.unescape(title[1])) if title else ""
    return f"![{text}](data:image/svg+xml;base64,{encoded})"


_STYLE: Any = {
    "svg.hashsalt": "onerec",
    "text.parse_math": False,  # a dollar sign is no formula
    "svg.fonttype": "none",  # text stays text: small, searchable, sharp
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def _picture(
    draw: Callable[[Any], None],
    title: str,
    x_label: str,
    y_label: str,
    *,
    empty: bool,
    height: float = 3.2,
) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), facecolor=PAPER, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.grid(visible=True)
        axes.tick_params(length=0)
        axes.set_title(title, loc="left")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if empty:
            axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes)
            axes.set_xticks([])
            axes.set_yticks([])
        else:
            draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    label = html.escape(title)  # what a screen reader says
    svg = f'<svg role="img" aria-label="{label}"' + svg[svg.index("<svg") + len("<svg") :]
    # Names of groups are never referred to, and would clash when two pictures share a page.
    return re.sub(r'<g id="[A-Za-z0-9]+_\d+">', "<g>", svg)


def _colours(named: Mapping[str, object]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(named))]


def _thin(length: int, limit: int = MAX_POINTS) -> list[int]:
    if length <= limit:
        return list(range(length))
    return [round(i * (length - 1) / (limit - 1)) for i in range(limit)]


def _legend(axes: Any, entries: int) -> None:
    if entries > 1:
        axes.legend()


def _whole_numbers(axes: Any, lengths: list[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    if lengths and max(lengths) <= MAX_POINTS:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _short(value: float) -> str:
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1e}"
