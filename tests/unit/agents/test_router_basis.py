"""A frozen basis: the same bytes of `x` in any process, and no damaged bytes are used."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from agents.router import basis_build, features
from agents.router.basis import DIRECTIONS, FORMAT, LIMIT, UNIT, Basis, grams
from agents.router.features import ONE
from schemas import ids
from schemas.errors import Refused

TOPICS = (
    "river lake water fish boat bridge rain flood island harbour",
    "integral matrix prime theorem vector proof number graph field ring",
    "bread soup oven butter salt pepper onion kitchen recipe plate",
    "contract court judge appeal statute tort damages witness verdict clause",
)
FILL = ["the", "of", "a", "in", "is", "what", "which", "how", "and", "to", "for", "with"]
ODD = ["", " ", "🙂🙂", "\ud800", "zzzz qqqq", "日本語", "the", "a" * 3000, "\n\n\n"]


@cache
def texts() -> tuple[str, ...]:
    rng = np.random.default_rng(5)
    return tuple(
        " ".join(rng.choice([*TOPICS[n % 4].split(), *FILL], size=int(rng.integers(8, 30)))) + "?" for n in range(600)
    )


@cache
def built() -> Basis:
    return basis_build.build(texts(), 3)


def test_a_vector_is_int16_with_its_bias_first() -> None:
    """Bias, 20 surface numbers, then the text's features; all within ±8."""
    for basis in (built(), Basis.random(1)):
        for text in (*texts()[:20], *ODD):
            x = basis.vector(text)
            assert x.dtype == np.int16
            assert x.shape == (basis.size,)
            assert x[0] == ONE
            assert np.abs(x.astype(int)).max() <= LIMIT
            assert tuple(x[1:21]) == features.surface(text, basis.scale)
    assert sum(length for length, _ in built().blocks) == built().size <= 256


def test_directions_have_length_one() -> None:
    """The unit vector is of length 1 to its resolution, and zero where no gram is known."""
    for basis in (built(), Basis.random(1)):
        length = np.linalg.norm(basis.directions(texts()[0]).astype(float))
        assert length == pytest.approx(UNIT, abs=DIRECTIONS)
    assert not built().directions("zzzz qqqq").any()


def test_texts_of_a_topic_are_near_each_other() -> None:
    """Built and random bases bring texts of one topic closer than those of two; the built one does so better."""

    def gap(basis: Basis) -> float:
        units = np.array([basis.directions(text) for text in texts()[:80]], float) / UNIT
        cosines, same = units @ units.T, np.equal.outer(np.arange(80) % 4, np.arange(80) % 4)
        return float(cosines[same & ~np.eye(80, dtype=bool)].mean() - cosines[~same].mean())

    assert gap(built()) > gap(Basis.random(1)) > 0.05


def test_kernel_features_have_the_spread_of_their_prior() -> None:
    """Over the texts of the basis their mean is near 0 and their root mean square length near `SPREAD`."""
    found = np.array([built().vector(text)[21:] for text in texts()], float) / ONE
    assert np.abs(found.mean(axis=0)).max() < 0.1
    assert np.sqrt((found**2).sum(axis=1).mean()) == pytest.approx(basis_build.SPREAD, rel=0.05)


def test_bytes_come_back_as_the_same_basis() -> None:
    """To bytes and back: the same digest, the same vectors; a random basis is its seed."""
    for basis in (built(), Basis.random(9)):
        data = basis.to_bytes()
        again = Basis.from_bytes(data)
        assert again.to_bytes() == data
        assert again.digest == basis.digest == ids.digest(data)
        assert all((again.vector(text) == basis.vector(text)).all() for text in (*texts()[:10], *ODD))
    assert len(Basis.random(9).to_bytes()) < 1000


def test_the_same_texts_and_seed_give_the_same_basis() -> None:
    """Building again, within one process, gives the same name; another seed another one."""
    assert basis_build.build(texts(), 3).digest == built().digest
    assert basis_build.build(texts(), 4).digest != built().digest


@pytest.mark.parametrize("at", [0, 10, 200, 3000, -40, -1])
def test_damaged_bytes_are_refused(at: int) -> None:
    """One other bit, anywhere: refused."""
    data = bytearray(built().to_bytes())
    data[at] ^= 1
    with pytest.raises(Refused, match="damaged"):
        Basis.from_bytes(bytes(data))


@pytest.mark.parametrize("change", [
    lambda body: body.replace(FORMAT.encode(), b"ratchet-basis/9"),
    lambda body: body[:-4],
    lambda body: body + b"\0\0\0\0",
    lambda body: body.replace(b'"gain"', b'"pain"'),
    lambda body: b"no header\n" + body,
    lambda body: body.replace(b'"rows":[', b'"rowz":['),
])  # fmt: skip
def test_sealed_bytes_of_another_form_are_refused(change: Callable[[bytes], bytes]) -> None:
    """Bytes with a good seal and a bad content: refused, saying what is accepted."""
    body = change(built().to_bytes()[:-32])
    with pytest.raises(Refused, match="accepted"):
        Basis.from_bytes(body + hashlib.sha256(body).digest())


def test_nothing_and_half_are_refused() -> None:
    """No bytes, and the first half."""
    data = built().to_bytes()
    for part in (b"", b"x", data[: len(data) // 2]):
        with pytest.raises(Refused, match="damaged"):
            Basis.from_bytes(part)


SCRIPT = """
import sys, hashlib
from pathlib import Path
from agents.router.basis import Basis
basis = Basis.from_bytes(Path(sys.argv[1]).read_bytes())
texts = Path(sys.argv[2]).read_text().split("|")
both = (basis, Basis.random(7))
print(hashlib.sha256(b"".join(one.vector(text).tobytes() for one in both for text in texts)).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_another_process_gives_the_same_bytes(hash_seed: str, tmp_path: Path) -> None:
    """Bit for bit, under other hash seeds and other numbers of threads."""
    chosen = [*texts()[:50], "", "日本語 🙂", "word " * 5000]
    (tmp_path / "basis").write_bytes(built().to_bytes())
    (tmp_path / "texts").write_text("|".join(chosen))
    env = {"PYTHONHASHSEED": hash_seed, "OPENBLAS_NUM_THREADS": "2" if hash_seed == "0" else "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "basis"), str(tmp_path / "texts")],
        env=env, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    bases = (built(), Basis.random(7))
    here = b"".join(basis.vector(text).tobytes() for basis in bases for text in chosen)
    assert done.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_a_random_basis_does_not_drift() -> None:
    """A vector of our own: what a route without history learnt on must mean the same tomorrow."""
    found = Basis.random(1).vector("What is the capital of France?")
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == PUBLISHED
    assert Basis.random(1).vector("x").tobytes() != Basis.random(2).vector("x").tobytes()


PUBLISHED = "3383a718126d57f1"


def test_grams_are_words_and_neighbours() -> None:
    """A pair's hash is that of its two words joined; pairs keep their order."""
    assert grams(["red", "bus"])[:2] == [grams(["red"])[0], grams(["bus"])[0]]
    assert len(grams(["a", "b", "c"])) == 5
    assert grams(["a", "b"])[2] != grams(["b", "a"])[2]
    assert grams([]) == []


def test_rare_words_weigh_nothing() -> None:
    """What is in fewer than five texts is not in the basis: adding it to a text changes no direction."""
    held = [*texts(), *["margaret ashworth of thornbury", "margaret ashworth"] * 2]
    basis = basis_build.build(held, 3)
    assert not np.isin(grams(["margaret"]), basis.known).any()
    assert not basis.directions("margaret ashworth thornbury").any()


def test_too_little_is_refused() -> None:
    """Few texts, or texts without words in common, make no basis."""
    with pytest.raises(Refused, match="accepted: at least"):
        basis_build.build(texts()[:50], 1)
    with pytest.raises(Refused, match="grams in common"):
        basis_build.build([f"w{n}" for n in range(300)], 1)
    with pytest.raises(Refused, match="grams in common"):
        basis_build.build([""] * 300, 1)


def test_a_long_text_takes_linear_time() -> None:
    """200 kB of ever new words take well under a second."""
    text = " ".join(f"w{n}" for n in range(30_000))
    assert len(text) > 190_000
    before = time.process_time()
    built().vector(text)
    assert time.process_time() - before < 1.0
