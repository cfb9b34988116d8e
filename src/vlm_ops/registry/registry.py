"""The registry of one model: its versions, its champion, and the moves of that alias."""

import logging
from collections.abc import Callable
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from vlm_ops.artifacts import Evaluation, GateDecision, ModelRef, PreparedData
from vlm_ops.errors import RegistryError
from vlm_ops.registry import former, tags
from vlm_ops.registry.finding import alias_version, all_versions, find_version, model_names
from vlm_ops.registry.judgement import Judgement, judgement_of
from vlm_ops.registry.ledger import Move, carry_out, champion_before, new_move, read_ledger
from vlm_ops.registry.package import check_package, fetch_package
from vlm_ops.registry.registration import Origin, Submission, create, judge_anew
from vlm_ops.registry.versions import Champion, RegisteredVersion, VersionSummary, summary
from vlm_ops.tracking.connection import Connection, answered

__all__ = ["Champion", "Move", "Origin", "RegisteredVersion", "Registry", "VersionSummary"]

logger = logging.getLogger(__name__)


class Registry(Connection):
    """A registered model of an MLflow server, reached once.

    Every method raises ``ServiceError`` when the server does not answer, and ``RegistryError``
    when it refuses.

    Attributes:
        name: The registered model; it need not exist yet.
    """

    refusal = RegistryError

    def __init__(self, uri: str, name: str) -> None:
        """Reach the server.

        Raises:
            ServiceError: It does not answer.
        """
        super().__init__(uri)
        self.name = name

    @answered
    def champion(self) -> Champion | None:
        """Return the champion, None if there is none yet.

        Raises:
            RegistryError: The alias points to a version that vlm-ops did not register.
        """
        found = self._champion()
        if found is None:
            return None
        return Champion(
            name=self.name,
            version=str(found.version),
            content=tags.content_of(found),
            gate=found.tags.get(tags.GATE),
        )

    @answered
    def versions(self) -> list[VersionSummary]:
        """List the versions, the newest first; empty before the first one.

        Raises:
            RegistryError: There are registered models, but none of this name.
        """
        found = all_versions(self.client, self.name)
        if not found:
            names = model_names(self.client)
            if names and self.name not in names:
                raise RegistryError(f"no registered model {self.name!r}; found {', '.join(names)}")
            return []
        if before := [v for v in found if former.accepted(v.tags) is not None]:
            logger.warning(
                "%d of %d versions of %r carry the tags of an earlier vlm-ops; they are read as "
                "they are",
                len(before), len(found), self.name,
            )  # fmt: skip
        aliases = self.client.get_registered_model(self.name).aliases
        return [summary(version, aliases) for version in found]

    @answered
    def download(self, version: str, into: Path) -> ModelRef:
        """Fetch a version's files; those that lie there already are used.

        Args:
            version: A number, or an alias as ``champion``.
            into: Folder for ``<content[:16]>/``, which appears complete or not at all.

        Raises:
            RegistryError: There is no such version, or its files are not what was registered.
            OutputError: ``into`` can't be written to.
        """
        return fetch_package(self.client, find_version(self.client, self.name, version), into)

    @answered
    def register(
        self,
        evaluation: Evaluation,
        decision: GateDecision,
        data: PreparedData,
        origin: Origin,
        pipeline_run: Callable[[], str],
    ) -> RegisteredVersion:
        """Register the candidate, accepted or not, and point the alias ``candidate`` to it.

        The same candidate on the same data under the same protocol is one version. Registering
        it again returns that version as it is; only when the gate has judged it anew (against
        another champion) is the newer decision written on it.

        Args:
            evaluation: Names the logged candidate and its scores.
            decision: Of the gate.
            data: What was trained and measured on.
            origin: Configuration, commit and flow run.
            pipeline_run: Returns the id of the pipeline's MLflow run; called where a version is
                made.
        """
        told = Submission(evaluation=evaluation, decision=decision, data=data, origin=origin)
        found = next((v for v in all_versions(self.client, self.name) if told.is_of(v)), None)
        if found is None:
            made = create(self.client, self.name, told, pipeline_run())
        else:
            made = found
            if told.says_more_than(found):
                judge_anew(self.client, found, told)
        self._point_candidate(made)
        return RegisteredVersion(
            name=self.name,
            version=str(made.version),
            content=evaluation.model.content,
            created=found is None,
        )

    @answered
    def promote(
        self, version: str, *, reason: str | None, by: str, decision_required: bool = True
    ) -> Move:
        """Make a version the champion.

        The gate must have accepted that version, against today's champion. Without
        ``decision_required`` a person may do without that, but not without a reason.

        Args:
            version: A number, or an alias as ``candidate``.
            reason: In words; None takes the gate's.
            by: Who does it.
            decision_required: Refuse a version that the gate did not accept, whatever the reason.

        Returns:
            The move. If that version is champion already, nothing is moved or written, and
            ``moved`` is False.

        Raises:
            RegistryError: There is no such version, it was not accepted and no reason is given, or
                its files are not the registered ones.
        """
        target = find_version(self.client, self.name, version)
        current = self._champion()
        judgement, objection = self._judged(target, current)
        given = (reason or "").strip()
        standing = current is not None and str(current.version) == str(target.version)
        if objection and not standing and (decision_required or not given):
            raise RegistryError(
                f"version {target.version} of {self.name!r} is not promoted: {objection}\n"
                f"To promote it all the same, give a reason: "
                f'`vlm-ops promote {self.name} {target.version} --reason "…"`.'
            )
        why = given or (judgement.reasons if judgement else "No gate has judged it.")
        forced = bool(objection) and not standing
        move = new_move("promote", current, target, who=by, why=why, forced=forced)
        if not standing:
            check_package(self.client, target)
            carry_out(self.client, self.name, move)
        return move

    @answered
    def rollback(self, *, reason: str | None, by: str) -> Move:
        """Put back the version that was champion before, after checking its files.

        Rolling back twice goes back two versions: a version that was rolled away from does not
        come back by itself.

        Args:
            reason: In words; None says what is rolled back.
            by: Who does it.

        Raises:
            RegistryError: There is no champion, none before it, or its version or files are gone.
        """
        current = self._champion()
        if current is None:
            raise RegistryError(
                f"{self.name!r} has no champion to roll back from. `vlm-ops models` lists its "
                f"versions."
            )
        before = champion_before(read_ledger(self.client, self.name), str(current.version))
        if before is None:
            raise RegistryError(
                f"version {current.version} is the first champion of {self.name!r}: there is none "
                f'to go back to. `vlm-ops promote {self.name} VERSION --reason "…"` picks another '
                f"one."
            )
        target = find_version(self.client, self.name, before)
        check_package(self.client, target)
        why = (reason or "").strip() or f"rolled back from version {current.version}"
        move = new_move("rollback", current, target, who=by, why=why, forced=False)
        carry_out(self.client, self.name, move)
        return move

    @answered
    def moves(self) -> list[Move]:
        """Return the ledger, the oldest move first.

        Raises:
            RegistryError: There is no such model, or a line was damaged.
        """
        return read_ledger(self.client, self.name)

    @answered
    def former_champions(self) -> set[str]:
        """Return the content hashes of models that were champion and had to give way.

        Raises:
            RegistryError: There is no such model, or a line of the ledger was damaged.
        """
        left = {m.from_version for m in read_ledger(self.client, self.name) if m.moved}
        versions = all_versions(self.client, self.name)
        return {tags.content_of(found) for found in versions if str(found.version) in left}

    def _champion(self) -> ModelVersion | None:
        return alias_version(self.client, self.name, tags.CHAMPION)

    def _judged(
        self, target: ModelVersion, current: ModelVersion | None
    ) -> tuple[Judgement | None, str | None]:
        """Return what the gate said of a version, and what speaks against promoting it."""
        try:
            judgement = judgement_of(self.client, target)
        except RegistryError as error:
            return None, str(error)
        if judgement is None:
            return None, "no gate has judged it."
        return judgement, judgement.objection(current)

    def _point_candidate(self, made: ModelVersion) -> None:
        """Point to the newest; also mends what an interrupted call left behind."""
        current = alias_version(self.client, self.name, tags.CANDIDATE)
        if current is None or int(current.version) < int(made.version):
            self.client.set_registered_model_alias(self.name, tags.CANDIDATE, made.version)
