"""Who is told how runs end: Prefect's own blocks and automations, made by one command.

The address lies in a block of Prefect's server, encrypted there. An automation for each kind of
event sends through it. All of it can be seen and changed in Prefect's pages.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from uuid import UUID

from flows.disk import DISK_LOW
from flows.spans import EXPECTED, span
from vlm_ops.errors import ConfigError, ServiceError
from vlm_ops.store.names import nearest

if TYPE_CHECKING:
    from prefect.blocks.notifications import SlackWebhook
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger

ENDS = {
    "promoted": ("Promoted",),
    "refused": ("Refused",),
    "stays": ("Stays",),
    "trial": ("Trial",),
    "skipped": ("Skipped",),
    "failed": ("Failed", "Crashed", "TimedOut"),
    "cancelled": ("Cancelled",),
}
"""Which states of a run each word of ``--on`` means."""
DISK = "disk-low"
SKIPPED_FOR = "skipped-for"
USUAL = ("promoted", "refused", "failed")
"""What is told where nothing is said."""

_TAG = "vlm-ops-notify"
_TO = "to:"
_FLOW = {"prefect.resource.role": "flow", "prefect.resource.name": "retrain"}
_RESULTS = ("promoted", "refused", "stays", "trial")
_ONCE = timedelta(days=1)
"""How often a disk that stays full is told."""

_WHO = "{% if deployment %}{{ deployment.name }}{% else %}{{ flow_run.name }}{% endif %}"
_PAGE = "{% set page = flow_run|ui_url %}{% if page %}\nPrefect: {{ page }}{% endif %}"
_ENDED = ("{{ flow_run.state.name }}: " + _WHO, "{{ flow_run.state.message }}" + _PAGE)
_FULL = ("Disk low: {{ event.resource.name }}", "{{ event.payload.message }}")


@dataclass(frozen=True)
class Target:
    """Somebody who is told.

    Attributes:
        name: Of the target.
        where: The service and, where it holds no secret, the host.
        events: What is told, as ``--on`` takes it; in the order of the alphabet.
    """

    name: str
    where: str
    events: tuple[str, ...]


def understood(event: str) -> timedelta | None:
    """Check a word of ``--on``; return the time in it, if there is one.

    Raises:
        ConfigError: There is no such event.
    """
    word, _, text = event.partition("=")
    if word == SKIPPED_FOR:
        if (time := span(text)) is None:
            raise ConfigError(f"--on {event}: {EXPECTED}: {SKIPPED_FOR}=3d")
        return time
    if event not in (*ENDS, DISK):
        known = [*ENDS, f"{SKIPPED_FOR}=3d", DISK]
        raise ConfigError(
            f"--on {event}: there is no such event{nearest(event, known)}; expected some of "
            f"{', '.join(known)}, alias"
        )
    return None


def add(url: str, events: Sequence[str], name: str | None = None) -> Target:
    """Have an address told of events; one of the same name is replaced.

    Args:
        url: What Apprise takes (Slack, Teams, Discord, ``mailto://``, …), or that of a plain
            webhook, which gets JSON with ``title`` and ``message``.
        events: Words of :data:`ENDS`, ``disk-low``, ``skipped-for=3d``.
        name: Of the target; made of the service's name when None.

    Raises:
        ConfigError: The address, an event or the name is not understood.
    """
    from prefect.client.orchestration import get_client

    made = [(event, *_automation(event)) for event in events]
    address, target = _described(url, name)
    with get_client(sync_client=True) as client:
        block = _save(address, target.name)
        for old in _automations(client, target.name):
            client.delete_automation(old.id)
        for event, trigger, texts in made:
            client.create_automation(_sending(target, event, block, trigger, texts))
    return replace(target, events=tuple(sorted(events)))


def named(url: str, name: str | None = None) -> Target:
    """Return what a target would be called, without making it.

    Raises:
        ConfigError: The address or the name is not understood.
    """
    return _described(url, name)[1]


def _described(url: str, name: str | None) -> tuple[str, Target]:
    """Return an address as Apprise takes it, and a target without events."""
    address, service, where = _understood(url)
    name = name or f"{service}-{hashlib.sha256(url.encode()).hexdigest()[:6]}"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ConfigError(
            f"the name {name!r} is not understood; expected small letters, digits and single "
            "dashes, as ops-channel"
        )
    return address, Target(name, where, ())


def targets() -> list[Target]:
    """Return who is told, by name; no addresses."""
    from prefect.client.orchestration import get_client

    found: dict[str, Target] = {}
    with get_client(sync_client=True) as client:
        for automation in _automations(client):
            _, name, event = (tag.partition(":")[2] for tag in automation.tags)
            told = found[name].events if name in found else ()
            found[name] = Target(name, automation.description, tuple(sorted((*told, event))))
    return [found[name] for name in sorted(found)]


def remove(name: str) -> None:
    """Tell a target nothing any more, and forget its address.

    Raises:
        ConfigError: There is no such target.
    """
    from prefect.blocks.notifications import SlackWebhook
    from prefect.client.orchestration import get_client

    _must_be_known(name)
    with get_client(sync_client=True) as client:
        for automation in _automations(client, name):
            client.delete_automation(automation.id)
    SlackWebhook.delete(_document(name))


def try_out(name: str) -> Target:
    """Send a target a message, from this machine.

    Raises:
        ConfigError: There is no such target.
        ServiceError: It does not answer, or does not take the message.
    """
    from prefect.blocks.abstract import NotificationError
    from prefect.blocks.notifications import SlackWebhook

    target = _must_be_known(name)
    block = cast("SlackWebhook", SlackWebhook.load(_document(name)))
    try:
        with block.raise_on_failure():
            block.notify(subject="vlm-ops", body="A test: this is where vlm-ops will tell you.")
    except NotificationError as error:
        said = " ".join(error.log.split()) or "it gave no reason"
        raise ServiceError(
            f"{name}: {target.where} did not take the test message: {_hidden(said, block)}; check "
            "the address, and whether this machine reaches it; `vlm-ops notify add` with the same "
            "--name puts another in its place"
        ) from None
    return target


def _hidden(said: str, block: "SlackWebhook") -> str:
    """Take an address out of a text."""
    url = block.url.get_secret_value()
    for secret in (url, url.partition("://")[2]):
        said = said.replace(secret, "…")
    return said


def _understood(url: str) -> tuple[str, str, str]:
    """Return an address as Apprise takes it, the service's name for names, and for people."""
    from apprise import Apprise

    url = url.strip()
    with _quiet():
        plugin = Apprise.instantiate(url)
        if plugin is None and url.startswith(("http://", "https://")):
            url = _as_json(url)
            plugin = Apprise.instantiate(url)
    if plugin is None:
        scheme = re.match(r"[a-z]+(?=://)", url)
        raise ConfigError(
            f"the address ({f'{scheme[0]}://…' if scheme else 'without a scheme'}) is not "
            "understood; expected that of a webhook (https://…), of Slack, Teams or Discord as "
            "they give it, mailto://USER:PASSWORD@HOST, or another that Apprise takes "
            "(https://github.com/caronc/apprise/wiki)"
        )
    name = str(plugin.service_name)
    public = url.split("://")[0] in ("json", "jsons", "mailto", "mailtos", "http", "https")
    host = urlsplit(url).hostname if public else None
    service = "webhook" if name == "JSON" else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return url, service, f"{'webhook' if name == 'JSON' else name}{f' at {host}' if host else ''}"


def _as_json(url: str) -> str:
    """Write a plain webhook's address so that Apprise sends it JSON, its query as it is."""
    parts = urlsplit(url)
    query = urlencode(
        [(f"-{key}", value) for key, value in parse_qsl(parts.query)], quote_via=quote
    )
    scheme = "jsons" if parts.scheme == "https" else "json"
    return urlunsplit((scheme, parts.netloc, parts.path, query, ""))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Apprise's complaints about an address, which may quote it, out of every log."""
    logger = logging.getLogger("apprise")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _automation(event: str) -> "tuple[EventTrigger, tuple[str, str]]":
    """Return when an event counts as come, and the subject and text of the message."""
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    within = understood(event)
    if event == DISK:
        each = {"prefect.resource.id"}
        return EventTrigger(expect={DISK_LOW}, for_each=each, within=_ONCE), _FULL
    every: dict[str, Any] = {
        "match": ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        "match_related": ResourceSpecification(dict(_FLOW)),
    }
    if within is not None:
        trigger = EventTrigger(
            after=_states(*ENDS),
            expect=_states(*_RESULTS),
            for_each={"related:deployment:prefect.resource.id"},
            posture=Posture.Proactive,
            within=within,
            **every,
        )
        days = event.partition("=")[2]
        text = (
            f"No run has come to a result for {days}: they were skipped, failed or did not "
            "start. The last one noted: {{ flow_run.state.name }}, {{ flow_run.state.message }}"
        )
        return trigger, (f"No result for {days}: " + _WHO, text + _PAGE)
    return EventTrigger(expect=_states(event), **every), _ENDED


def _states(*words: str) -> set[str]:
    return {f"prefect.flow-run.{state}" for word in words for state in ENDS[word]}


def _sending(
    target: Target, event: str, block: UUID, trigger: "EventTrigger", texts: tuple[str, str]
) -> "AutomationCore":
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore

    subject, body = texts
    action = SendNotification(block_document_id=block, subject=subject, body=body)
    return AutomationCore(
        name=f"Tell {target.name}: {event}",
        description=target.where,
        tags=[_TAG, _TO + target.name, f"on:{event}"],
        trigger=trigger,
        actions=[action],
    )


def _save(url: str, name: str) -> UUID:
    from prefect.blocks.notifications import SlackWebhook
    from pydantic import SecretStr

    # Of Prefect's blocks the one that hands every address to Apprise as it is. A class of our own
    # would have to be installed where Prefect's server runs.
    block = SlackWebhook(url=SecretStr(url))
    return cast(UUID, block.save(_document(name), overwrite=True))


def _document(name: str) -> str:
    return f"{_TAG}-{name}"


def _automations(client: "SyncPrefectClient", name: str | None = None) -> "list[Automation]":
    from prefect.events.filters import AutomationFilter, AutomationFilterTags

    tags = [_TAG, *([_TO + name] if name else [])]
    wanted = AutomationFilter(tags=AutomationFilterTags(all_=tags))
    return client.read_automations(automations=wanted, limit=200)


def _must_be_known(name: str) -> Target:
    found = {target.name: target for target in targets()}
    if name not in found:
        raise ConfigError(
            f"nobody called {name!r} is told{nearest(name, list(found))}; known: "
            f"{', '.join(found) or 'nobody'}"
        )
    return found[name]
