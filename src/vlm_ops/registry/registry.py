"""The registry of one model: its versions, its champion, and the moves of that alias."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.gate import GateSettings
from vlm_ops.errors import RegistryError
from vlm_ops.records import Look
from vlm_ops.registry import former, promotion, tags
from vlm_ops.registry.finding import (
    alias_version,
    all_versions,
    find_version,
    model_names,
    version_or_none,
)
from vlm_ops.registry.integrity import check_fetched
from vlm_ops.registry.ledger import Move, read_ledger
from vlm_ops.registry.looks import CountedLook, count, counted, read_looks
from vlm_ops.registry.margins import pin, pinned
from vlm_ops.registry.moving import moving
from vlm_ops.registry.package import fetch_description, fetch_package
from vlm_ops.registry.registration import (
    Origin,
    Submission,
    create,
    judge_anew,
    keep,
    link,
)
from vlm_ops.registry.standing import read_state
from vlm_ops.registry.story import Story, story_of
from vlm_ops.registry.versions import (
    Champion,
    RegisteredVersion,
    Standing,
    VersionSummary,
    summary,
)
from vlm_ops.tracking.connection import Connection, answered, answered_once

__all__ = [
    "Champion",
    "CountedLook",
    "Move",
    "Origin",
    "RegisteredVersion",
    "Registry",
    "Standing",
    "Story",
    "Submission",
    "VersionSummary",
]

logger = logging.getLogger(__name__)


class Registry(Connection):
    """A registered model of an MLflow server, reached once.

    Every method raises ``Unanswered`` when the server does not answer, and ``RegistryError`` when
    it refuses. All but a rollback are done again as a whole, under another lease, where a run waits
    for the server: each brings to its end what an earlier try was cut off in, and does nothing
    where that had come to its end.

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
        found = find_version(self.client, self.name, version)
        return fetch_package(
            self.client, found, into, check=lambda folder: check_fetched(self.client, found, folder)
        )

    @answered
    def described(self, version: str) -> tuple[str, ModelRef]:
        """Return a version's number, and which model it is; none of its weights are fetched.

        Args:
            version: A number, or an alias as ``champion``.

        Raises:
            RegistryError: There is no such version, or what describes it is not what was
                registered.
        """
        found = find_version(self.client, self.name, version)
        with tempfile.TemporaryDirectory() as scratch:
            return str(found.version), fetch_description(self.client, found, Path(scratch))

    @answered
    def story(self, version: str) -> Story:
        """Return what is known of a version, a number or an alias, beside its files.

        Raises:
            RegistryError: There is no such version, or what was kept with it is not what it was.
        """
        return story_of(self.client, find_version(self.client, self.name, version))

    @answered
    def dataset(self, version: str) -> str | None:
        """Return the content hash of the rows that a version was trained on.

        None if it does not tell, or is gone.
        """
        found = version_or_none(self.client, self.name, version)
        return None if found is None else found.tags.get(tags.DATASET)

    @answered
    def register(self, told: Submission, pipeline_run: Callable[[], str]) -> RegisteredVersion:
        """Register the candidate, accepted or not, and point the alias ``candidate`` to it.

        The same candidate on the same data under the same protocol is one version. Registering
        it again returns that version as it is; only when the gate has judged it anew (against
        another champion) is the newer decision written on it.

        Args:
            told: The candidate, evaluated and judged.
            pipeline_run: Returns the id of the pipeline's MLflow run; called where a version is
                made.
        """
        kept = None
        if self._version_of(told) is None:
            # This may send the model's files, which takes longer than a lease lasts.
            kept = keep(self.client, told, pipeline_run())
        with moving(self.client, self.name):
            found = self._version_of(told)
            if found is None:
                kept = kept or keep(self.client, told, pipeline_run())
                made = create(self.client, self.name, told, kept)
            else:
                made = found
                link(self.client, made)
                if told.says_more_than(made):
                    judge_anew(self.client, made, told, pipeline_run())
            self._point_candidate(made)
        return RegisteredVersion(
            name=self.name,
            version=str(made.version),
            content=told.evaluation.model.content,
            created=found is None,
        )

    @answered
    def promote(
        self,
        version: str,
        *,
        reason: str | None,
        by: str,
        decision_required: bool = True,
        still: Callable[[], None] = lambda: None,
    ) -> Move:
        """Make a version the champion.

        The gate must have accepted that version, against today's champion, and nothing must be in
        doubt about who that is. Without ``decision_required`` a person may do without both, but
        not without a reason; that settles the doubt. A model that was champion before and had to
        give way comes back with a person's reason only, whatever the gate said.

        Args:
            version: A number, or an alias as ``candidate``.
            reason: In words; None takes the gate's.
            by: Who does it.
            decision_required: Refuse a version that the gate did not accept, whatever the reason.
            still: Called when its files were checked and nobody else can move the alias any more;
                raises if the version must not become champion after all.

        Returns:
            The move. If that version is champion already and there is no doubt, nothing is moved
            or written, and ``moved`` is False.

        Raises:
            ChampionMoved: The gate accepted it, but against another champion than today's.
            RegistryError: There is no such version, it was not accepted, was champion before or
                there is a doubt, and no reason is given, or its files are not the registered ones.
        """
        order = promotion.Order(
            by, (reason or "").strip(), decision_required=decision_required, still=still
        )
        return promotion.promote(self.client, self.name, version, order)

    # Done a second time it would go back one version more.
    @answered_once
    def rollback(
        self,
        version: str | None = None,
        *,
        reason: str | None,
        by: str,
        agree: Callable[[Move], bool] = lambda move: True,
        unasked: bool = False,
    ) -> Move:
        """Put an earlier champion back, after checking its files and asking it what it was asked.

        Questions were recorded when it was registered. Where the same libraries, kind of device and
        dtype compute as then, it must answer as it did; elsewhere it must answer, and the ledger
        says what differs.

        Rolling back twice goes back two versions: a version that was rolled away from does not
        come back by itself. A rollback that was cut off is ended by the next one.

        Args:
            version: Number of an earlier champion; None takes the one before today's.
            reason: In words; None says what is rolled back.
            by: Who does it.
            agree: Given the move when all is checked; unless it is true, nothing is written.
            unasked: Check the files alone, for an emergency; the ledger says so.

        Returns:
            The move, or the one that would have been made.

        Raises:
            ChampionMoved: Another one moved it meanwhile.
            RegistryError: There is no champion, none before it, a doubt who that is, or the earlier
                one's version or files are gone or others, or it does not answer as it did.
        """
        order = promotion.Order(by, (reason or "").strip())
        return promotion.rollback(
            self.client, self.name, version, order, agree=agree, unasked=unasked
        )

    @answered
    def moves(self) -> list[Move]:
        """Return the ledger, the oldest line first, without what can't be read.

        Raises:
            RegistryError: There is no such model.
        """
        model = self.client.get_registered_model(self.name)
        return read_ledger(model.tags, model.aliases.get(tags.CHAMPION)).moves

    @answered
    def former_champions(self) -> set[str]:
        """Return the content hashes of models that were champion and had to give way.

        Raises:
            RegistryError: There is no such model.
        """
        return promotion.former_champions(self.client, self.name, self.moves())

    @answered
    def standing(self) -> Standing:
        """Return the champion, and whether alias and ledger leave a doubt who that is."""
        return read_state(self.client, self.name).standing()

    @answered
    def look(self, candidate: str, champion: str | None, terms: str, groups: Sequence[str]) -> Look:
        """Count a look at the test rows, before the gate takes it.

        Args:
            candidate: Content hash of the model that is judged.
            champion: Content hash of the champion that it is compared with; None without one.
            terms: Hash of what is asked of which rows, and how (the protocol).
            groups: Sketch of the test groups (:func:`vlm_ops.evaluation.looks.sketch`).

        Returns:
            The look; the same one again for the same candidate, champion and terms.
        """
        with moving(self.client, self.name) as mover:
            before = counted(mover.state.tags, candidate, champion, terms)
            return before or count(mover, candidate, champion, terms, groups)

    @answered
    def looks(self) -> list[CountedLook]:
        """Return the looks at test rows that were counted, the oldest first."""
        found = read_looks(read_state(self.client, self.name).tags)
        return [one for one in found if one is not None]

    @answered
    def margins(self) -> GateSettings | None:
        """Return the gate's settings that the model carries, None before the first registration.

        Raises:
            RegistryError: They can't be read.
        """
        return pinned(read_state(self.client, self.name))

    @answered
    def pin(self, settings: GateSettings, *, reason: str | None, by: str) -> None:
        """Have the model carry these settings of the gate.

        Args:
            settings: Of the gate.
            reason: In words; needed to change those that it carries.
            by: Who does it.

        Raises:
            RegistryError: It carries others, and no reason is given.
        """
        with moving(self.client, self.name) as mover:
            pin(mover, settings, reason=(reason or "").strip(), by=by)

    def _version_of(self, told: Submission) -> ModelVersion | None:
        return next((v for v in all_versions(self.client, self.name) if told.is_of(v)), None)

    def _point_candidate(self, made: ModelVersion) -> None:
        """Point to the newest; also mends what an interrupted call left behind."""
        current = alias_version(self.client, self.name, tags.CANDIDATE)
        if current is None or int(current.version) < int(made.version):
            self.client.set_registered_model_alias(self.name, tags.CANDIDATE, made.version)
