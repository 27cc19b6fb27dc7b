"""Who annotates, and under which guideline and phase: what an administrator of a project does."""

from __future__ import annotations

from collections.abc import Callable, Collection

from accord.annotation import answers, independence, people, rounds
from accord.annotation.database import Database
from accord.annotation.people import Annotator, Erasure
from accord.annotation.refusals import Unknown
from accord.annotation.rounds import Guideline, OldLabels, Phase


class Administration:
    """People, rounds and guidelines of a `Store`."""

    database: Database
    clock: Callable[[], float]

    # -- people -------------------------------------------------------------------------------------------------------------------------

    def add_annotator(self, name: str, role: str = "annotator", *, id: str | None = None, secret: str | None = None) -> Annotator:
        """Add somebody.

        Args:
            name: for people; the record never holds it.
            role: admin, annotator, viewer, or program (a model or a rule).
            id: the key that the record knows them by. None makes a random one.
            secret: of their invitation; a hash of it is kept. None: they cannot be found by one.
        Raises:
            DataError: if name, role or id is none. Conflict: if the id is taken.
        """
        with self.database.writing() as connection:
            return people.add_annotator(connection, name, role, id, secret, self.clock())

    def annotator(self, annotator: str) -> Annotator:
        """One annotator. Raises Unknown."""
        with self.database.reading() as connection:
            found = people.list_annotators(connection, id=annotator) if answers.KEY.fullmatch(annotator) else []
        if not found:
            raise Unknown(f"There is no annotator {annotator[:60]!r}.")
        return found[0]

    def annotators(self) -> list[Annotator]:
        """Everybody, in the order they came."""
        with self.database.reading() as connection:
            return people.list_annotators(connection)

    def annotator_of_secret(self, secret: str) -> Annotator | None:
        """Whose invitation this secret is; None: nobody's."""
        with self.database.reading() as connection:
            found = people.list_annotators(connection, secret_hash=people.hash_secret(secret))
        return found[0] if found else None

    def erase(self, annotator: str) -> Erasure:
        """Erase a person from the record: name, invitation, drafts, rationales and every text they wrote. Doing it again changes nothing.

        Choices stay, under a key that no longer leads to anybody; a written answer stays as a tombstone. Later snapshots say how many.
        Snapshots made before are reached by `erasure.erase_everywhere`; backups hold what they held.

        Raises:
            Unknown: if there is no such annotator.
        """
        with self.database.writing() as connection:
            return people.erase(connection, annotator, self.clock())

    def erasures(self) -> list[Erasure]:
        """What was erased, in order."""
        with self.database.reading() as connection:
            return people.list_erasures(connection)

    def readable(self, annotator: str, tasks: Collection[str]) -> set[str]:
        """Those of some tasks that a person has judged, or has read the judgements of: the others are still theirs to judge without knowing."""
        with self.database.reading() as connection:
            return independence.readable(connection, annotator, list(tasks))

    def read(self, annotator: str, tasks: Collection[str]) -> None:
        """Note that a person reads what was said of some tasks: from now on they are not asked about them, and what they said of them stays.

        Raises:
            Unknown: if there is no such annotator or task.
        """
        with self.database.writing() as connection:
            independence.read(connection, annotator, tasks, self.clock())

    # -- rounds and guidelines ----------------------------------------------------------------------------------------------------------

    def phase(self, round: int) -> Phase:
        """calibration, work or ended."""
        with self.database.reading() as connection:
            return rounds.phase(connection, round)

    def set_phase(self, round: int, phase: Phase) -> None:
        """Move a round on: to work ends its calibration, ended gives out nothing more."""
        with self.database.writing() as connection:
            rounds.set_phase(connection, round, phase)

    def begin_calibration(self, round: int, count: int) -> int:
        """Have everybody label the same tasks first, and wait there until `set_phase(round, "work")`. Newcomers do them first too.

        Args:
            count: how many of the tasks that nobody has begun.
        Raises:
            DataError: if there are not as many.
        """
        with self.database.writing() as connection:
            return rounds.begin_calibration(connection, round, count, self.clock())

    def set_guideline(self, text: str, *, old_labels: OldLabels = "kept") -> Guideline:
        """Have a text be what annotators go by; the text that holds already makes no new version.

        Args:
            old_labels: kept (they count as before), flagged (their examples say so) or relabel (people's count no more and are asked again).
        Raises:
            DataError: if the text is empty or `old_labels` is none of these.
        """
        with self.database.writing() as connection:
            return rounds.add_guideline(connection, text, old_labels, self.clock())

    def guideline(self, version: int | None = None) -> Guideline:
        """One version. None is the newest. Raises Unknown."""
        with self.database.reading() as connection:
            return rounds.guideline(connection, version)

    def guidelines(self) -> list[Guideline]:
        """Every version, the oldest first."""
        with self.database.reading() as connection:
            return rounds.list_guidelines(connection)
