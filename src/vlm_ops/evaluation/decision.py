"""What the gate leaves behind."""

from vlm_ops.records import Look, Verdict
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.frozen import added


class GateDecision(Artifact):
    """The gate's verdict on a candidate, and whom it was measured against.

    Attributes:
        verdict: Accepted or refused, with reasons.
        candidate: Content hash of the candidate.
        champion: Content hash of the champion at that time; None if there was none.
        champion_answers: Content hash of its answers, by which this decision is found again.
        champion_on: The same for its answers on benchmarks, by name.
        champion_version: Its version in the registry.
        look: At these test rows; None where none was counted, and in records of earlier versions.
        level: That the comparison with the champion had to meet at this look.
        power: Chance that a candidate truly 4 points better than the champion (without one, the
            base) is accepted at this level; None if the answers could not be compared.
    """

    step = "gate"

    verdict: Verdict
    candidate: str
    champion: str | None
    champion_answers: str | None
    champion_version: str | None
    champion_on: dict[str, str] = added({})
    look: Look | None = None
    level: float | None = None
    power: float | None = None
