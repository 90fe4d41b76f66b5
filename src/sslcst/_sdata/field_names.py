"""What the names of a field's elements share: what their reader, or `spatialdata.concatenate`, put before or behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True)
class FieldName:
    """What the names of a field's elements begin and end with; either may be empty."""

    prefix: str  # "1_"
    suffix: str  # "-old"

    @property
    def name(self) -> str:
        """What it is called: the field of view, the sample, or both."""
        return f"{self.prefix}{self.suffix}".replace("_-", "-").strip("_-")

    @property
    def marks(self) -> dict[str, str]:
        """What the columns of a table say of it."""
        return {"fov": self.prefix.removesuffix("_"), "sample": self.suffix.removeprefix("-")}

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def holds(self, name: str) -> bool:
        """Whether an element's name is of the field."""
        return len(name) > len(self) and name.startswith(self.prefix) and name.endswith(self.suffix)

    def own(self, key: str) -> list[str]:
        """What an element may be called that is meant by a name for all fields; of results the key comes first."""
        stem, _, kind = key.rpartition("_")
        return [f"{self.prefix}{key}{self.suffix}", *([f"{stem}_{self.name}_{kind}"] if stem else [])]


def of_same_field(candidates: Iterable[str], name: str) -> list[str]:
    """Those names that share most with a name; none where none shares anything."""
    size = {other: len(shared(name, other)) for other in candidates}
    return [other for other in size if size[other] == max(size.values()) > 0]


def shared(one: str, other: str) -> FieldName:
    """The longest beginning up to a "_", and the longest end from a "-" on, of two names."""
    first = _common(one, other)
    first = first[: first.rfind("_") + 1]
    last = _common(one[len(first) :][::-1], other[len(first) :][::-1])[::-1]
    return FieldName(first, last[last.find("-") :] if "-" in last else "")


def _common(one: str, other: str) -> str:
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
