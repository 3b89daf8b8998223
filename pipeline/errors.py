"""Errors written for the person at the keyboard: what is wrong, where, what to do."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend. The command line prints its one line and exits with `exit_code`."""

    exit_code = 2


class ParamsError(UserError):
    """`params.yaml` (or a `-S` override) holds an unknown key, a bad value or a bad combination."""


class CorpusError(UserError):
    """The corpus folder or one of its tables is not what the adapter expects."""


class WeightsError(UserError):
    """Model weights are absent, of another architecture, or do not cover the model."""


class StoreError(UserError):
    """A store is absent, incomplete or does not fit the others it is joined with."""


class CacheError(UserError):
    """The clip cache cannot be opened or written."""


class DiskError(UserError, OSError):
    """A disk is full or write-protected."""


class DeviceError(UserError):
    """The device asked for is not there."""


class WorkerError(UserError):
    """Worker processes cannot be kept running on this machine."""


class QuarantineError(UserError):
    """More clips failed than `quarantine.max_rate` allows."""

    exit_code = 3


class LeakageError(UserError):
    """Two splits share what they must not share."""

    exit_code = 3


def one_of(kind: str, name: str, known: Iterable[str], error: type[UserError] = ParamsError) -> UserError:
    """The one line for an unknown name: what was asked for, the nearest match, all that is known.

    >>> print(one_of("fusion", "gatd", ["concat", "gated"]))
    Unknown fusion 'gatd'. Did you mean 'gated'? Known: concat, gated.
    """
    import difflib

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return error(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}.")
