"""Who is champion, and whether alias and ledger say the same."""

from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from vlm_ops.registry import tags
from vlm_ops.registry.finding import version_or_none
from vlm_ops.registry.ledger import Ledger, read_ledger
from vlm_ops.registry.versions import Champion, Standing


class State(NamedTuple):
    """One reading of a registered model.

    Attributes:
        name: Of the registered model.
        exists: Whether there is one of this name.
        tags: Of the model.
        ledger: From its tags.
        champion: The version that the alias points to.
        doubt: As :class:`~vlm_ops.registry.versions.Standing` has it.
    """

    name: str
    exists: bool
    tags: dict[str, str]
    ledger: Ledger
    champion: ModelVersion | None
    doubt: str | None

    @property
    def moved_outside(self) -> bool:
        """Whether the alias was moved by something that writes no ledger."""
        last = self.ledger.last
        return self.champion is not None and (
            last is None or last.to_version != str(self.champion.version)
        )

    @property
    def champion_version(self) -> str | None:
        """The champion's number; where the alias is lost, the one that the ledger says."""
        if self.champion is not None:
            return str(self.champion.version)
        return self.ledger.last.to_version if self.ledger.last else None

    @property
    def champion_content(self) -> str | None:
        """The champion's content; where the alias is lost, the one that the ledger says."""
        if self.champion is not None:
            return self.champion.tags.get(tags.CONTENT)
        return self.ledger.last.to_content if self.ledger.last else None

    def standing(self) -> Standing:
        """Return what the rest of the package is told of it."""
        content = self.champion.tags.get(tags.CONTENT) if self.champion is not None else None
        champion = None
        if self.champion is not None and content is not None:
            champion = Champion(
                name=self.name,
                version=str(self.champion.version),
                content=content,
                gate=self.champion.tags.get(tags.GATE),
            )
        return Standing(champion=champion, doubt=self.doubt, moved_outside=self.moved_outside)


def read_state(client: MlflowClient, name: str) -> State:
    """Read how things stand with a registered model, which need not exist.

    MLflow reads tags and aliases one after the other. So what looks out of order is looked at once
    more: it may have been in the middle of a move.

    Raises:
        MlflowException: The server does not answer.
    """
    found = _read(client, name)
    return _read(client, name) if found.doubt or found.moved_outside else found


def _read(client: MlflowClient, name: str) -> State:
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return State(name, False, {}, Ledger(), None, None)
    alias = model.aliases.get(tags.CHAMPION)
    ledger = read_ledger(model.tags, alias)
    champion = None if alias is None else version_or_none(client, name, str(alias))
    flaw = ledger.flaw() or _loss(client, name, ledger, champion, alias)
    doubt = flaw and (
        f"{name!r}: {flaw}. Nothing is promoted until a person has said which version is the "
        f'champion: `vlm-ops promote {name} VERSION --reason "…"`; '
        f"`vlm-ops models {name}` lists them."
    )
    return State(name, True, dict(model.tags), ledger, champion, doubt)


def _loss(
    client: MlflowClient,
    name: str,
    ledger: Ledger,
    champion: ModelVersion | None,
    alias: str | int | None,
) -> str | None:
    """Say why the alias does not tell who is champion, if it does not."""
    if champion is not None:
        if tags.CONTENT in champion.tags:
            return None
        return (
            f"its champion, version {champion.version}, has no tag {tags.CONTENT}: it was not "
            f"registered by vlm-ops"
        )
    if alias is not None:
        return f"its alias champion points to version {alias}, which was deleted in MLflow"
    last = ledger.last
    if last is None or last.to_version is None:
        return None
    gone = version_or_none(client, name, last.to_version) is None
    lost = "that version was deleted" if gone else "the alias was deleted"
    return f"its champion is version {last.to_version} by its ledger, but {lost} in MLflow"
