#!/usr/bin/env python3
"""Verifies an exported Keepwell log, without Keepwell.

An independent second opinion: written from RFC 6962/9162 and the C2SP pages on checkpoints, signed notes and tiles,
with nothing but Python's standard library. It reads DIR/checkpoint and DIR/tile/entries, computes the Merkle root from
the entries and compares it with the checkpoint; with --key it checks the Ed25519 signature, with --checkpoint also
that the log still begins with a checkpoint that was kept elsewhere. The exit status is 0 when all is well.

    scripts/verify-log.py DIR [--key NAME+ID+BASE64] [--checkpoint FILE]...
"""

import argparse
import base64
import hashlib
import os
import sys


class Wrong(Exception):
    """The log is not what it says it is."""


def leaf_hash(entry):
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """Roots of a growing list: a stack of perfect subtrees, as in RFC 9162."""

    def __init__(self):
        self.size = 0
        self.stack = []

    def append(self, entry):
        node, n = leaf_hash(entry), self.size
        while n & 1:
            node = node_hash(self.stack.pop(), node)
            n >>= 1
        self.stack.append(node)
        self.size += 1

    def root(self):
        if not self.stack:
            return hashlib.sha256().digest()
        node = self.stack[-1]
        for left in reversed(self.stack[:-1]):
            node = node_hash(left, node)
        return node


def tile_name(n):
    groups = ["%03d" % (n % 1000)]
    while n >= 1000:
        n //= 1000
        groups.insert(0, "x%03d" % (n % 1000))
    return os.path.join(*groups)


def entries(folder, size):
    """All entries in order; a bundle that holds more or fewer than it must is an error."""
    for first in range(0, size, 256):
        width = min(256, size - first)
        name = tile_name(first // 256) + ("" if width == 256 else ".p/%d" % width)
        with open(os.path.join(folder, "tile", "entries", name), "rb") as file:
            data = file.read()
        at = 0
        for _ in range(width):
            length = int.from_bytes(data[at : at + 2], "big")
            entry = data[at + 2 : at + 2 + length]
            if len(data) < at + 2 or len(entry) != length:
                raise Wrong("bundle %s is cut" % name)
            at += 2 + length
            yield entry
        if at != len(data):
            raise Wrong("bundle %s holds more than its entries" % name)


class Checkpoint:
    def __init__(self, path):
        with open(path, "rb") as file:
            note = file.read().decode("utf-8")
        at = note.rindex("\n\n")
        self.text, self.lines = note[: at + 1], note[at + 2 :].splitlines()
        fields = self.text.split("\n")
        self.origin, self.size = fields[0], int(fields[1])
        self.root = base64.b64decode(fields[2], validate=True)

    def check_signature(self, vkey):
        name, key_id, key = vkey.split("+", 2)
        key = base64.b64decode(key, validate=True)
        if key[0] != 1 or hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() != key_id:
            raise Wrong("the public key's id does not fit")
        for line in self.lines:
            dash, signer, signature = line.split(" ")
            signature = base64.b64decode(signature, validate=True)
            if dash == "—" and signer == name and signature[:4].hex() == key_id:
                if ed25519_verifies(key[1:], self.text.encode(), signature[4:]):
                    return
                raise Wrong("the signature of %s is wrong" % name)
        raise Wrong("there is no signature of %s" % name)


# Ed25519 verification, RFC 8032 section 5.1.7, on extended coordinates. Slow, and long enough for one signature.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def point_add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def point_multiply(s, p):
    q = (0, 1, 1, 0)
    while s > 0:
        if s & 1:
            q = point_add(q, p)
        p = point_add(p, p)
        s >>= 1
    return q


def point_decode(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if len(data) != 32 or y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P != 0:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P != 0 or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def ed25519_verifies(public, message, signature):
    if len(signature) != 64:
        return False
    a, r = point_decode(public), point_decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    base = point_decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    left, right = point_multiply(s, base), point_add(r, point_multiply(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


def verify(folder, vkey, outside):
    checkpoint = Checkpoint(os.path.join(folder, "checkpoint"))
    known = [Checkpoint(path) for path in outside]
    if vkey:
        for note in [checkpoint] + known:
            note.check_signature(vkey)
    for note in known:
        if note.origin != checkpoint.origin:
            raise Wrong("the outside checkpoint is of another log")
        if note.size > checkpoint.size:
            raise Wrong("the log was rolled back: %d entries were known, now there are %d" % (note.size, checkpoint.size))
    tree, roots = Tree(), {}
    wanted = {note.size for note in known}
    for entry in entries(folder, checkpoint.size):
        if tree.size in wanted:
            roots[tree.size] = tree.root()
        tree.append(entry)
    roots[tree.size] = tree.root()
    if tree.root() != checkpoint.root:
        raise Wrong("the root of the entries is not the checkpoint's")
    for note in known:
        if roots[note.size] != note.root:
            raise Wrong("the log's history was changed")
    print("%s: %d entries, root %s" % (checkpoint.origin, tree.size, base64.b64encode(tree.root()).decode()))
    print("signature: %s" % ("good" if vkey else "not checked, no --key"))
    print("outside checkpoints: %s" % (len(known) if known else "none, a rollback cannot be seen"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--key", help="the log's public key, NAME+ID+BASE64")
    parser.add_argument("--checkpoint", action="append", default=[], help="a checkpoint kept elsewhere")
    arguments = parser.parse_args()
    try:
        verify(arguments.folder, arguments.key, arguments.checkpoint)
    except (Wrong, OSError, ValueError) as error:
        print("WRONG: %s" % error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
