"""Pipeline files that are made to hurt, by what hurts in them. `benchmarks/hostile.py` measures how long each takes."""

from collections.abc import Callable, Iterable

from sources.files import ONE

STEPS = b"name: x\nsteps:\n"
DEEP = b"/".join([b"a"] * 29)


def rows(pattern: bytes, count: int) -> bytes:
    """The pattern once for each number, which stands in each of its places."""
    return b"".join(pattern.replace(b"%d", b"%d" % n) for n in range(count))


def listed(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def numbered(pattern: bytes, count: int) -> bytes:
    return listed(pattern % n for n in range(count))


HOSTILE: dict[str, Callable[[], bytes]] = {
    # YAML
    "open brackets": lambda: b"[" * 4_000_000,
    "open braces": lambda: b"{" * 4_000_000,
    "closed brackets": lambda: b"[" * 2_000_000 + b"]" * 2_000_000,
    "open lists with values": lambda: b"[a," * 1_000_000,
    "open mappings with keys": lambda: b"{a: " * 1_000_000,
    "dashes": lambda: b"- " * 2_000_000,
    "question marks": lambda: b"? " * 2_000_000,
    "deep blocks": lambda: b"".join(b" " * n + b"a:\n" for n in range(2_800)),
    "deep lists": lambda: b"a: " + b"[\n" * 10_000 + b"]\n" * 10_000,
    "alias bomb": lambda: (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9))
    ),
    "long chain of aliases": lambda: (
        b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (n + 1, n + 1, n) for n in range(1_000))
    ),
    "many values": lambda: b"a: [" + b"a," * 2_000_000,
    "many mappings": lambda: b"a: [" + b"{}," * 1_300_000,
    "a long quote": lambda: b'name: "' + b"x" * 4_000_000,
    "tabs": lambda: b"\t" * 4_000_000,
    "empty documents": lambda: b"---\n" * 1_000_000,
    "100 MB": lambda: b"#" * 100_000_000,
    # keys and values
    "many keys": lambda: rows(b"k%d: x\n", 100_000),
    "many steps": lambda: STEPS + rows(b"  s%d: {run: x}\n", 50_000),
    "wrong types": lambda: STEPS + rows(b"  s%d: 5\n", 15_000),
    "unknown keys": lambda: STEPS + rows(b"  s%d: {run: x, rum: x}\n", 20_000),
    "wrong values": lambda: STEPS + rows(b"  s%d: {run: x, timeout: x, inputs: [../a]}\n", 15_000),
    "wrong inputs": lambda: STEPS + b"  s: {run: x, inputs: " + listed([b"../a"] * 200_000) + b"}\n",
    "numbers as inputs": lambda: STEPS + b"  s: {run: x, inputs: " + listed([b"5"] * 200_000) + b"}\n",
    "wrong variables": lambda: STEPS + rows(b"  s%d: {run: x, variables: {" + rows(b"A-%d: x,", 1_900) + b"}}\n", 60),
    "long number": lambda: b"name: x\nsteps: {a: {run: x, timeout: " + b"9" * 4_000_000 + b"}}\n",
    "long schedule": lambda: b"name: x\nsteps: {a: {run: x}}\non: {schedule: {a: '" + b"1," * 1_000_000 + b"'}}\n",
    # needs and paths
    "one mistake in many steps": lambda: (
        STEPS + rows(b"  s%d: {run: x, inputs: [a%d/], outputs: [o%d/]}\n", 12_000) + b"zzz: 1\n"
    ),
    "unknown needs": lambda: STEPS + rows(b"  s%d: {run: x, needs: t%d}\n", 15_000),
    "unknown needs of one": lambda: (
        STEPS
        + b"".join(b"  s%060d: {run: x}\n" % n for n in range(15_000))
        + b"  z: {run: x, needs: "
        + numbered(b"s9%059d", 9_000)
        + b"}\n"
    ),
    "long loop": lambda: (
        STEPS + b"".join(b"  s%d: {run: x, needs: s%d}\n" % (n, (n + 1) % 15_000) for n in range(15_000))
    ),
    "all need all": lambda: STEPS + rows(b'  s%d: {run: x, inputs: ".", outputs: o%d}\n', 15_000),
    "one output": lambda: STEPS + rows(b"  s%d: {run: x, outputs: o}\n", 15_000),
    "outputs in outputs": lambda: (
        STEPS
        + b"".join(
            b"  s%d: {run: x, outputs: %s/%d}\n" % (n, b"/".join([b"a"] * (n % 39 + 1)), n) for n in range(9_000)
        )
        + b"".join(b"  t%d: {run: x, outputs: %s}\n" % (n, b"/".join([b"a"] * n)) for n in range(1, 40))
    ),
    "deep paths": lambda: (
        STEPS
        + b"  a: {run: x, outputs: "
        + numbered(DEEP + b"/b%d", 20_000)
        + b"}\n  z: {run: x, needs: q, inputs: "
        + numbered(DEEP + b"/c%d", 20_000)
        + b"}\n"
    ),
    "wildcards": lambda: (
        STEPS
        + b"  a: {run: x, outputs: "
        + numbered(b'"*a%d*a*a"', 900)
        + b"}\n  b: {run: x, inputs: "
        + numbered(b'"a%d/b"', 60_000)
        + b"}\n"
    ),
    "very many wildcards": lambda: STEPS + b"  a: {run: x, outputs: " + numbered(b'"a/%d*"', 100_000) + b"}\n",
    "truth among wildcards": lambda: (
        STEPS
        + b"  a: {run: x, evidence: {predictions: p, truth: b}, inputs: "
        + numbered(b'"*a%d*a*a"', 1_000)
        + b"}\n"
    ),
    # interpolation
    "open interpolations": lambda: STEPS + b'  a: {run: "' + b"${{" * 1_000_000 + b'"}\n',
    "interpolations": lambda: STEPS + b'  a: {run: "' + rows(b"${{ a%d }}", 300_000) + b'"}\n',
    "long variable": lambda: (
        b"name: x\nvariables: {A: '"
        + b"y" * 1_000_000
        + b"'}\nsteps: {a: {run: '"
        + b"${{ variables.A }}" * 99
        + b"'}}"
    ),
    # matrices
    "many axes": lambda: STEPS + b"  a: {run: x, matrix: {" + rows(b"a%d: [0,1,2,3,4],", 1_900) + b"}}\n",
    "many cells": lambda: STEPS + rows(b"  s%d: {run: x, matrix: {a: " + numbered(b"%04d", 200) + b"}}\n", 1_000),
    "many values of an axis": lambda: STEPS + b"  a: {run: x, matrix: {a: " + numbered(b"%d", 200_000) + b"}}\n",
    "many excluded": lambda: (
        STEPS
        + b"  a: {run: x, matrix: {a: "
        + numbered(b"%d", 256)
        + b", exclude: "
        + listed([b"{a: 1}"] * 60_000)
        + b"}}\n"
    ),
    "much text": lambda: (
        STEPS + b"  a: {run: '" + b"${{ matrix.a }}" * 200_000 + b"', matrix: {a: " + numbered(b"%d", 256) + b"}}\n"
    ),
    "needed by many": lambda: (
        STEPS
        + b"  a: {run: x, matrix: {a: "
        + numbered(b"%d", 256)
        + b"}}\n"
        + rows(b"  s%d: {run: x, needs: a}\n", 15_000)
    ),
    "read by many": lambda: (
        STEPS
        + b"  a: {run: x, outputs: o/, matrix: {a: [0,1]}}\n  b: {run: x, needs: 'a[a=${{ matrix.b }}]', inputs: "
        + numbered(b"o/%d", 100_000)
        + b", matrix: {b: "
        + numbered(b"%d", 256)
        + b"}}\n"
    ),
    "unknown cells": lambda: (
        STEPS
        + rows(b"  s%d: {run: x, matrix: {a: [0,1]}}\n", 9_000)
        + b"  z: {run: x, needs: "
        + numbered(b"'s%d[a=2]'", 9_000)
        + b"}\n"
    ),
    # the rest
    "many gates": lambda: (
        STEPS + b"  a: {run: x, metrics: m}\ngates:\n" + rows(b"  g%d: {metric: b.x, at_least: 1}\n", 40_000)
    ),
    "many secrets": lambda: (
        STEPS
        + b"  a: {run: x, env: "
        + numbered(b"A%d", 60_000)
        + b", secrets: "
        + numbered(b"B%d", 60_000)
        + b"}\n  z: {run: x, needs: q}\n"
    ),
    "environments with many needs": lambda: (
        ONE.encode()
        + b"package: {code: x, serve: x}\nenvironments:\n"
        + b"".join(b"  e%d: {port: %d}\n" % (n, n + 1) for n in range(1_900))
        + b"  z: {port: 1, needs: "
        + numbered(b"f%d", 100_000)
        + b"}\n"
    ),
}
