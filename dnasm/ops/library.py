"""How our functions become torch operators, `torch.ops.dnasm.*`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: its schema, what runs it, what gives the shapes of its results, and what else it has."""

    schema: str
    run: Callable[..., Any]
    fake: Callable[..., Any]
    gradient: Callable[..., Any] | None = None
    remember: Callable[..., None] | None = None
    """What of a call its gradient needs: `setup_context`."""
    autocast: Callable[[str], Callable[..., Any]] | None = None
    """Of a device's type, what runs in its stead under autocast there."""


def register(*operators: Operator) -> torch.library.Library:
    """Define operators. By hand, since `torch.library.custom_op` imports the whole compiler in its first call.

    Args:
        operators: What to define; they stay defined while the library that is returned is alive.
    """
    library = torch.library.Library("dnasm", "FRAGMENT")  # type: ignore[no-untyped-call]
    for each in operators:
        name = each.schema.split("(")[0]
        library.define(each.schema, tags=torch.Tag.pt2_compliant_tag)  # type: ignore[no-untyped-call]
        library.impl(name, each.run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"dnasm::{name}", each.fake, lib=library)
        if each.autocast is not None:
            library.impl(name, each.autocast("cpu"), "AutocastCPU")  # type: ignore[no-untyped-call]
            library.impl(name, each.autocast("cuda"), "AutocastCUDA")  # type: ignore[no-untyped-call]
        if each.gradient is not None:
            torch.library.register_autograd(f"dnasm::{name}", each.gradient, setup_context=each.remember, lib=library)
    return library
