# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text format that Prometheus reads: a HELP and a TYPE line for each metric, then its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

Value = Union[int, float, bool]


@dataclass
class Gauge:
    """One metric; help is a sentence. Names follow Prometheus's conventions: base units, the unit last."""

    name: str
    help: str
    samples: list[tuple[dict[str, str], Value]] = field(default_factory=list)

    def add(self, value: Value | None, **labels: str) -> None:
        """A sample; a value that is not known is left out, as 0 would be a lie."""
        if value is not None:
            self.samples.append((labels, value))


def text_of(gauges: Mapping[str, Gauge]) -> str:
    """The file's text; a metric without samples is left out. Ends with a newline, as the format wants."""
    lines = []
    for gauge in gauges.values():
        if gauge.samples:
            lines += [f"# HELP {gauge.name} {_help(gauge.help)}", f"# TYPE {gauge.name} gauge"]
            lines += [f"{gauge.name}{_labels(labels)} {_number(value)}" for labels, value in gauge.samples]
    return "".join(f"{line}\n" for line in lines)


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escape(value: str) -> str:
    clean = value.encode("utf-8", "replace").decode()  # a path may hold bytes that are no text
    return clean.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: Value) -> str:
    return str(int(value)) if isinstance(value, (bool, int)) else repr(float(value))
