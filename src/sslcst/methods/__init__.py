"""How cells come about: one folder each, arrays only, none knows another.

A method is declared by a subclass of `sslcst.methods.base.Method`; `METHODS` says where those of this package are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sslcst.params import Params, check_known, check_sections

if TYPE_CHECKING:
    from sslcst.methods.base import Method

METHODS = {
    "network": "sslcst.methods.network.method:Network",
    "density": "sslcst.methods.density.method:Density",
    "ssl-cst": "sslcst.methods.ssl_cst.method:SslCst",
    "stain": "sslcst.methods.whole.method:Stain",
    "given": "sslcst.methods.whole.method:Given",
}
DEFAULT = "network"


def default_method(cells_key: str | None) -> str:
    """The method of a run that names none: where cells are given, the one that takes them."""
    return DEFAULT if cells_key is None else "given"


def method_class(method: str | type[Method]) -> type[Method]:
    """The class of a method: by its name, or as it is."""
    from sslcst.methods.base import Method

    if isinstance(method, type) and issubclass(method, Method):
        return method
    check_known("method", "method", method, METHODS)
    module, name = METHODS[method].split(":")
    return getattr(import_module(module), name)


def choose_method(
    method: str | type[Method], params: Params | Mapping[str, Any] | None, **settings: Any
) -> tuple[Params, Method]:
    """The parameters that all methods share, and the method with its own; `params` holds sections of both.

    They are nested mappings of what differs from the defaults, or the shared parameters alone; `settings` are ``seed``,
    ``device`` and ``progress`` of the method. Raises a `ParameterError` for a method, section or parameter that is not
    known, or a value out of bounds.
    """
    from sslcst.methods.base import check_passes

    kind = method_class(method)
    shared, own = split(params, kind)
    chosen = kind(kind.Params.of(own), **settings)
    check_passes(chosen)
    return Params.of(shared), chosen


def section_names() -> set[str]:
    """The sections that all methods share, and those of each method."""
    kinds = [Params, *(method_class(name).Params for name in METHODS)]
    return {each.name for kind in kinds for each in fields(kind)}


def shared_params(params: Params | Mapping[str, Any] | None) -> Params:
    """The parameters that all methods share; sections of a method may stand beside them, and are not read."""
    shared = {each.name for each in fields(Params)}
    if isinstance(params, Mapping) and not set(params) <= shared:
        check_sections(params, section_names())
        params = {name: values for name, values in params.items() if name in shared}
    return Params.of(params)


def split(params: Params | Mapping[str, Any] | None, kind: type[Method]) -> tuple[Any, Any]:
    """What all methods share, and what is the method's own."""
    if not isinstance(params, Mapping):
        return params, None
    shared, own = ({each.name for each in fields(sections)} for sections in (Params, kind.Params))
    check_sections(params, shared | own, f" of method {kind.name!r}")
    parts = ({name: values for name, values in params.items() if name in names} for names in (shared, own))
    return tuple(parts)
