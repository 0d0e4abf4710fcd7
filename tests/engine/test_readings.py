"""Evidence in the cache is read once for all gates that judge it, and a file of truths once for all models."""

from collections import Counter
from pathlib import Path

import pytest

from penstock.artifacts import Digest, File, Tree
from penstock.cache.disk import DiskCache
from penstock.engine.readings import Readings, Wanted
from penstock.errors import ReportError
from penstock.parts import EvidenceFiles
from penstock.pipelines import Gate

FILES = EvidenceFiles(predictions="p.csv", truth="t.csv")
TRUTH = b"id,truth,place,grade\n1,a,x,1\n2,b,,2\n"


class Counting(DiskCache):
    """A cache that counts which content is read, by its first line."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: Counter[bytes] = Counter()

    def read(self, digest: Digest) -> bytes:
        found = super().read(digest)
        self.seen[found.partition(b"\n")[0]] += found.startswith(b"id")
        return found

    @property
    def truths(self) -> int:
        return self.seen[TRUTH.partition(b"\n")[0]]

    @property
    def predictions(self) -> int:
        return self.seen[b"id,prediction"]


@pytest.fixture
def cache(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "cache")


def kept(cache: Counting, **contents: bytes) -> Digest:
    """A tree of files, named by their first letter."""
    files = {f"{name}.csv": File(cache.add_bytes(data), len(data)) for name, data in contents.items()}
    return cache.add_tree(Tree(files))


def gate(**fields: object) -> Gate:
    return Gate.model_validate({"name": "g", "evidence": "evaluate", **fields})


def test_gates_say_what_evidence_is_read_for() -> None:
    """Scores and slices of all, each once; parity looks at predictions only."""
    gates = [
        gate(at_least=0.5),
        gate(at_least=0.5, score="grade", slices=["place", "truth"]),
        gate(at_most=0.5, score="log_loss", slices="place"),
        gate(same_as="other"),
    ]
    wanted = Wanted.of(gates)
    assert wanted == Wanted(("correct", "grade", "log_loss"), ("place", "truth"))
    assert wanted.whole == Wanted(wanted.scores)


def test_what_is_kept_is_read_once(cache: Counting) -> None:
    """Two models that met the same truths cost one reading of these, and gates on the same evidence none at all."""
    mine, theirs = (kept(cache, p=f"id,prediction\n1,a\n2,{text}\n".encode(), t=TRUTH) for text in ("b", "a"))
    readings, wanted = Readings(cache, keeps=True), Wanted(("correct",), ("place",))
    own = readings.evidence(FILES, mine, wanted)
    assert readings.evidence(FILES, mine, wanted) is own
    other = readings.evidence(FILES, theirs, wanted.whole)
    assert (own.slices["place"].labels, dict(other.slices), dict(other.columns)) == (("(empty)", "x"), {}, {})
    assert own.test_set == other.test_set
    assert (cache.truths, cache.predictions) == (1, 2)
    graded = readings.evidence(FILES, theirs, Wanted(("grade",)))
    assert graded.scored("grade").own.tolist() == [1, 2]
    assert (cache.truths, cache.predictions) == (2, 3)
    readings.forget()
    assert readings.evidence(FILES, mine, wanted) is not own


def test_what_is_not_kept_is_read_again(cache: Counting) -> None:
    """Whoever asks once has nothing lie about."""
    tree = kept(cache, p=b"id,prediction\n1,a\n2,b\n", t=TRUTH)
    readings = Readings(cache)
    for _ in range(2):
        assert len(readings.evidence(FILES, tree, Wanted(("correct",)))) == 2
        assert readings.answers(FILES, tree).texts["prediction"].tolist() == [b"a", b"b"]
    assert (cache.truths, cache.predictions) == (2, 4)


def test_what_is_not_there_is_named(cache: Counting) -> None:
    """A file that the step did not leave, and a column that neither file has."""
    tree = kept(cache, p=b"id,prediction\n1,a\n2,b\n", t=TRUTH)
    with pytest.raises(ReportError, match=r'neither p\.csv nor t\.csv has the column "size"'):
        Readings(cache).evidence(FILES, tree, Wanted(("correct",), ("size",)))
    with pytest.raises(ReportError, match=r"o\.csv is not among the files that the step left"):
        Readings(cache).answers(EvidenceFiles(predictions="o.csv"), tree)
    alone = Readings(cache).evidence(EvidenceFiles(predictions="t.csv"), tree, Wanted(("grade",), ("place",)))
    assert alone.scored("grade").own.tolist() == [1, 2]
