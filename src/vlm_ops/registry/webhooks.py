"""Programs that follow an alias: MLflow's own webhooks, called when one is set or taken away.

Source:
    MLflow's documentation, "MLflow Webhooks"; ``mlflow/webhooks``.
"""

from collections.abc import Iterable
from typing import NamedTuple

from mlflow.entities.webhook import Webhook, WebhookEvent, WebhookEventStr
from mlflow.exceptions import MlflowException

from vlm_ops.errors import RegistryError
from vlm_ops.tracking.connection import Connection, answered

_PREFIX = "vlm-ops-"
_EVENTS: list[WebhookEventStr | WebhookEvent] = [
    "model_version_alias.created",
    "model_version_alias.deleted",
]


class Follower(NamedTuple):
    """A webhook on alias moves.

    Attributes:
        name: Of the follower.
        where: The address without its path and query, which may be secret.
    """

    name: str
    where: str


class Webhooks(Connection):
    """The webhooks on alias moves of one MLflow server, of all its models.

    MLflow sends ``{"entity": "model_version_alias", "action": "created", "data": {"name": …,
    "alias": …, "version": …}}`` when an alias is set or moved, and ``deleted`` without a version.
    """

    refusal = RegistryError

    @answered
    def follow(self, name: str, url: str) -> Follower:
        """Have an address called on every move of an alias; one of the same name is replaced.

        Raises:
            RegistryError: The server does not take the address.
        """
        try:
            made = self.client.create_webhook(_PREFIX + name, url, _EVENTS)
        except MlflowException as error:
            if "webhook url" not in str(error).lower():
                raise
            raise RegistryError(
                f"MLflow at {self.uri} does not take the address of {name!r}: it calls https "
                "addresses of public hosts that it can resolve. For http, or a host of your own "
                "network, set MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and "
                "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true where its server (or `vlm-ops up`) starts"
            ) from None
        self._delete(one for one in self._named(name) if one.webhook_id != made.webhook_id)
        return _follower(made)

    @answered
    def followers(self) -> list[Follower]:
        """Return who follows, by name."""
        return sorted(_follower(webhook) for webhook in self._all())

    @answered
    def leave(self, name: str) -> bool:
        """Call an address no more; tell whether there was one."""
        found = self._named(name)
        self._delete(found)
        return bool(found)

    @answered
    def try_out(self, name: str) -> Follower | None:
        """Have the server send an example; None where there is no such follower.

        Raises:
            RegistryError: The address does not answer, or does not take it.
        """
        found = next(iter(self._named(name)), None)
        if found is None:
            return None
        result = self.client.test_webhook(found.webhook_id)
        if not result.success:
            status = result.response_status
            said = f"it answered {status}" if status else "it does not answer"
            raise RegistryError(
                f"{name}: MLflow's server could not call {_follower(found).where}: {said}; check "
                "the address, and whether that server reaches it"
            )
        return _follower(found)

    def _named(self, name: str) -> list[Webhook]:
        """Return all of a name: an attempt whose answer was lost may have made one, too."""
        return [one for one in self._all() if one.name == _PREFIX + name]

    def _delete(self, webhooks: Iterable[Webhook]) -> None:
        for one in webhooks:
            self.client.delete_webhook(one.webhook_id)

    def _all(self) -> list[Webhook]:
        found: list[Webhook] = []
        token: str | None = None
        while True:
            page = self.client.list_webhooks(max_results=100, page_token=token)
            found += [one for one in page if one.name.startswith(_PREFIX)]
            token = page.token
            if not token:
                return found


def _follower(webhook: Webhook) -> Follower:
    scheme, _, rest = webhook.url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    return Follower(webhook.name.removeprefix(_PREFIX), f"{scheme}://{host}/…")
