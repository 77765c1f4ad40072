"""One thing that breaks, and what comes of it."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from chaos.account import Account
from chaos.columns import DURING, LATE
from chaos.promise import Keeps, Promise
from chaos.stage import Plan, Stage

_LEAD = 1.5
"""Seconds of quiet before and after."""


@dataclass(frozen=True)
class Row:
    """One thing that breaks.

    Args:
        name: in the table.
        fault: breaks it, and returns when it is whole again as far as a person would mend it.
        plan: what the stage is like.
        promise: what is due.
        impossible: why it can't be played on this machine; empty if it can.
    """

    name: str
    fault: Callable[[Stage], None]
    plan: Plan = field(default_factory=Plan)
    promise: Promise = field(default_factory=Promise)
    impossible: Callable[[], str] = lambda: ""


@dataclass
class Result:
    """What came of a row.

    Attributes:
        accounts: by column.
        faults: what is not as promised.
        notes: what else was measured.
    """

    row: Row
    accounts: dict[str, Account]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def play(row: Row, streams: int | None = None, directory: Path | None = None) -> Result:
    """Set the stage, break the thing, and count.

    Args:
        streams: instead of as many as the row's plan has.
        directory: where logs go; a temporary one if not given.
    """
    plan = row.plan if streams is None else replace(row.plan, streams=streams)
    with tempfile.TemporaryDirectory(prefix="gateway-chaos-") as temporary:
        with Stage(directory or Path(temporary), plan) as stage:
            stage.begin()
            stage.play(_LEAD)
            try:
                stage.wake(DURING)
                row.fault(stage)
                stage.wait_workers()
                stage.wait_all_open()
                if row.promise.keeps is Keeps.NOTHING:
                    # Who was away at the loss begins anew when it comes back; by now everybody has.
                    stage.troubles.extend(time.monotonic_ns())
            except AssertionError as error:  # what it did to the clients is counted all the same
                stage.faults.append(str(error))
            stage.wake(LATE)
            stage.play(_LEAD)
            accounts = stage.end(row.promise)
        notes = [*stage.notes, *(f"Redis refused {count}: {text}" for text, count in stage.refusals.items())]
        return Result(row, accounts, [*stage.faults, *faults_of(accounts, row.promise)], notes)


def faults_of(accounts: Mapping[str, Account], promise: Promise) -> list[str]:
    """What the accounts hold that the gateway promises not to do."""
    faults: list[str] = []
    for column, account in accounts.items():
        never = {
            "clients that gave up": account.closed,
            "clients that got what nobody should": account.unexpected,
            "events delivered twice": account.duplicated,
            "events out of order": account.disordered,
            "events nobody published": account.phantom,
            "events lost without a gap event in their place": account.unannounced,
            "plain events lost that workers could hear": account.unexplained,
            "durable events lost that Redis kept": account.forgotten,
            "gap events where nothing broke": account.uncalled,
        }
        if column in promise.told:
            never["clients without a gap event that all were to get"] = account.clients - account.told
        found = [f"{column}: {count} {what}" for what, count in never.items() if count]
        faults += found
        if found:
            faults += [f"{column}: for example {example}" for example in account.examples[:3]]
    return faults
