"""Which decisions of the gate the registered versions of a server rest on."""

from vlm_ops.errors import RegistryError
from vlm_ops.registry import tags
from vlm_ops.registry.finding import all_versions, model_names
from vlm_ops.tracking.connection import Connection, answered


class Decisions(Connection):
    """The decisions of one MLflow server, over all its registered models."""

    refusal = RegistryError

    @answered
    def aliased(self) -> dict[str, bool]:
        """Return fingerprints of decisions, and whether an alias points to a version of each.

        Raises:
            ServiceError: The server does not answer.
            RegistryError: It refuses.
        """
        found: dict[str, bool] = {}
        for name in model_names(self.client):
            named = set(self.client.get_registered_model(name).aliases.values())
            for version in all_versions(self.client, name):
                if gate := version.tags.get(tags.GATE):
                    pointed = str(version.version) in {str(number) for number in named}
                    found[gate] = found.get(gate, False) or pointed
        return found
