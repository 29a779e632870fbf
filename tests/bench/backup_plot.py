"""The bench's figures as an SVG picture, drawn here: a plotting library would bring ten packages for one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any
from xml.sax.saxutils import escape

GROUPS = [
    ("writes blocked", [("freeze_s", "freeze window"), ("stop_rsync_start_s", "stop, rsync, start"),
                        ("stop_tar_start_s", "stop, tar -z, start")]),
    ("first backup", [("backup_s", "ours"), ("restic_backup_s", "bare restic")]),
    ("after 1 % of change", [("backup_delta_s", "ours"), ("restic_delta_s", "bare restic")]),
    ("restore", [("restore_s", "ours"), ("restic_restore_s", "bare restic")]),
    ("downtime of a restore", [("restore_downtime_s", "ours"), ("stack_restart_s", "stop and start alone")]),
]  # fmt: skip
OURS, OTHERS = "#2b6cb0", ("#a0aec0", "#718096")
LEFT, BAR, GAP, WIDTH, RIGHT = 190, 16, 14, 330, 60
LOW, HIGH = 0.01, 1000.0  # seconds; the axis is logarithmic, or the freeze window could not be seen
PANEL = LEFT + WIDTH + RIGHT


def draw(rows: Sequence[Mapping[str, Any]]) -> str:
    """One panel for each row, two beside each other."""
    height = _panel_height() + 40
    down = (len(rows) + 1) // 2 * height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * PANEL}" height="{down}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{2 * PANEL}" height="{down}" fill="white"/>',
    ]
    for number, row in enumerate(rows):
        parts.append(f'<g transform="translate({number % 2 * PANEL},{number // 2 * height})">')
        parts += [*_panel(row), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table, a column for each."""
    heads = [f"{row['filesystem']}, {row['size_bytes'] / 1e9:.1f} GB" for row in rows]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(rows) + 1) + "|"]
    for key in rows[0]:
        if key.endswith("_s"):
            lines.append(f"| `{key}` | {' | '.join(f'{row[key]:.2f}' for row in rows)} |")
    peaks = " | ".join(f"{row['peak_rss_bytes'] / 2**20:.0f} MiB" for row in rows)
    return "\n".join([*lines, f"| `peak_rss_bytes` | {peaks} |", ""])


def _panel_height() -> int:
    return 40 + sum(len(bars) * BAR + GAP + 16 for _title, bars in GROUPS)


def _panel(row: Mapping[str, Any]) -> list[str]:
    bottom = _panel_height()
    title = f"{row['filesystem']}, {row['size_bytes'] / 1e9:.1f} GB (seconds, logarithmic)"
    parts = [_text(LEFT, 24, title, "start", "bold")]
    for power in (-2, -1, 0, 1, 2, 3):
        x = _x(10.0**power)
        parts.append(f'<line x1="{x:.0f}" y1="34" x2="{x:.0f}" y2="{bottom}" stroke="#e2e8f0"/>')
        parts.append(_text(x, bottom + 14, f"{10.0**power:g}", "middle"))
    y = 40
    for name, bars in GROUPS:
        parts.append(_text(LEFT - 8, y + 12, name, "end", "bold"))
        y += 16
        for number, (key, label) in enumerate(bars):
            end, colour = _x(row[key]), OURS if number == 0 else OTHERS[number - 1]
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR - 3}" fill="{colour}"/>')
            parts.append(_text(LEFT - 8, y + 11, label, "end"))
            parts.append(_text(end + 4, y + 11, f"{row[key]:.2f}", "start"))
            y += BAR
        y += GAP
    return parts


def _x(seconds: float) -> float:
    share = (log10(min(max(seconds, LOW), HIGH)) - log10(LOW)) / (log10(HIGH) - log10(LOW))
    return LEFT + share * WIDTH


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
