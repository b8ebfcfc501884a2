"""Inputs made wrong on purpose: bytes of a file, or the values in a YAML or JSON text.

A mutation is a pure function of the seed and a random generator: equal numbers, equal inputs.
"""

import copy
import json

import numpy as np
import yaml

STRANGE = [
    *(None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, -(2**63), 10**29, -(10**29)),
    *(0.5, 1e300, -1e300, 1e-300, float('nan'), float('inf'), -float('inf')),
    *('', 'x', '../../x', '/etc/passwd', '/dev/zero', '\x1b[31m', '\ud7ff', 'x' * 5000, 'nan'),
    *([], {}, [[]], [None] * 3, [float('nan')] * 4, ['x'] * 4, [0] * 4, [1e300] * 9),
    *({'token': 'x'}, [{'a': 1}], {'': ''}, {'x': {'x': {'x': {}}}}),
]
EXTREMES = [b'\0' * 4, b'\xff' * 4, b'\x7f\xff\xff\xff', b'\xff\xff\xff\x7f', b'\x80\0\0\0', b'\1']


def mutated_bytes(data, rng):
    """A few bytes changed, a part cut, doubled, moved or set to extremes."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            return bytes(rng.integers(0, 256, 8, dtype=np.uint8))
        place = int(rng.integers(0, len(changed)))
        length = int(rng.integers(1, 1 + min(64, len(changed))))
        kind = int(rng.integers(0, 7))
        if kind == 0:
            changed[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            random = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
            changed[place : place + length] = random[: len(changed) - place]
        elif kind == 2:
            del changed[place:]
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length]
        elif kind == 5:
            extreme = EXTREMES[int(rng.integers(0, len(EXTREMES)))]
            changed[place : place + len(extreme)] = extreme
        else:
            changed[place:place] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    return bytes(changed)


def mutated_yaml(data, rng):
    """A YAML text with other values in it; now and then one whose bytes are damaged."""
    if rng.random() < 0.15:
        return mutated_bytes(data, rng)
    values = mutated_values(yaml.safe_load(data), rng)
    return yaml.dump(values, allow_unicode=True, Dumper=yaml.SafeDumper).encode('utf-8', 'replace')


def mutated_json(data, rng):
    """A JSON text with other values in it; now and then one whose bytes are damaged."""
    if rng.random() < 0.15:
        return mutated_bytes(data, rng)
    return json.dumps(mutated_values(json.loads(data), rng)).encode('utf-8', 'replace')


def mutated_values(values, rng):
    """Nested dicts and lists with some entries replaced, removed, doubled, renamed, exchanged."""
    values = copy.deepcopy(values)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(values))
        if not places:
            return _strange(rng)
        holder, key = places[int(rng.integers(0, len(places)))]
        kind = int(rng.integers(0, 8))
        if kind <= 3:
            holder[key] = _strange(rng)
        elif kind == 4:
            del holder[key]
        elif kind == 5:
            other, other_key = places[int(rng.integers(0, len(places)))]
            holder[key] = copy.deepcopy(other[other_key])
        elif kind == 6 and isinstance(holder, dict):
            holder[_strange_key(rng)] = holder.pop(key)
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[key] = [holder[key]]
    return values


def _places(values):
    """(holder, key) of every value below."""
    items = (
        values.items()
        if isinstance(values, dict)
        else enumerate(values)
        if isinstance(values, list)
        else ()
    )
    for key, inner in items:
        yield values, key
        yield from _places(inner)


def _strange(rng):
    return copy.deepcopy(STRANGE[int(rng.integers(0, len(STRANGE)))])


def _strange_key(rng):
    return ['', 'x', 'X' * 300, '../x', 'token '][int(rng.integers(0, 5))]
