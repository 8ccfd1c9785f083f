"""Sketches: inputs as sixteen numbers whose distances are theirs; and exact prints of inputs."""

from __future__ import annotations

import math

import numpy as np

from probewatch.data.columns import PRINTS
from probewatch.data.compiled import compiled
from probewatch.data.scales import CLIP, SKETCH

GRAIN = 256.0  # a sketch is kept in so many parts of one, to 127 on either side


@compiled
def mix(value):  # type: ignore[no-untyped-def]
    """A well-mixed 64-bit word (the finaliser of splitmix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def between(left, right):  # type: ignore[no-untyped-def]
    """Squared distance of two sketches."""
    total = np.float32(0.0)
    for p in range(SKETCH):
        delta = np.float32(np.int32(left[p]) - np.int32(right[p]))
        total += delta * delta
    return total * np.float32(1.0 / (GRAIN * GRAIN))


@compiled
def rank(quantiles, value):  # type: ignore[no-untyped-def]
    """Share of the quantiles that are not above the value, by bisection."""
    low, high = 0, len(quantiles)
    while low < high:
        middle = (low + high) // 2
        if quantiles[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low / len(quantiles)


@compiled
def copy(source, target):  # type: ignore[no-untyped-def]
    """Element by element: an assignment of slices compiles three seconds of error messages."""
    for p in range(SKETCH):
        target[p] = source[p]


@compiled
def grains_of(sketch, grains):  # type: ignore[no-untyped-def]
    """A sketch as it is kept."""
    for p in range(SKETCH):
        grains[p] = np.int16(min(max(round(sketch[p] * GRAIN), -32767), 32767))


@compiled
def project(inputs, centre, spread, sketch):  # type: ignore[no-untyped-def]
    """Scale, cut and project the inputs into ``sketch``.

    Returns the squared length of the scaled inputs, and how many inputs left their constant value. A
    model without a scale gets logarithmic inputs, whose differences need no scale: asinh.
    """
    sketch[:] = 0.0
    length, constants = 0.0, 0.0
    for d in range(len(inputs)):
        if len(centre) == 0:
            value = math.asinh(inputs[d])
        elif spread[d] > 0.0:
            value = (inputs[d] - centre[d]) / spread[d]
        else:
            constants += 1.0 if inputs[d] != centre[d] else 0.0
            continue
        value = min(max(value, -CLIP), CLIP)
        length += value * value
        if len(inputs) <= SKETCH:  # few columns need no projection
            sketch[d] = value
            continue
        signs = mix(np.uint64(d + 1) * np.uint64(0x9E3779B97F4A7C15))
        for p in range(SKETCH):  # random signs: distances are kept on average (Achlioptas 2003)
            sign = 1.0 - 2.0 * np.float64((signs >> np.uint64(p)) & np.uint64(1))
            sketch[p] += sign * value * 0.25  # 0.25 = 1 / sqrt(SKETCH)
    return length, constants


@compiled
def digest(inputs, prints):  # type: ignore[no-untyped-def]
    """Replace the bytes of the previous query by those of this one.

    Returns a hash of the exact inputs, and the share of the watched inputs that changed.
    """
    bits = inputs.view(np.uint64)
    whole = np.uint64(14695981039346656037)
    changed = 0.0
    watched = min(len(inputs), PRINTS)
    at = 0
    for d in range(len(inputs)):
        word = np.uint64(0) if inputs[d] == 0.0 else bits[d]  # -0.0 is 0.0
        whole = mix(whole ^ word)
        if at < watched and d == (at * len(inputs)) // watched:
            byte = np.uint8(mix(word) >> np.uint64(56))
            changed += 1.0 if byte != prints[at] else 0.0
            prints[at] = byte
            at += 1
    return whole, changed / watched


@compiled
def sketch_all(inputs, centre, spread):  # type: ignore[no-untyped-def]
    """The (n, SKETCH) kept sketches of (n, D) inputs, and their (n,) distances from the centre."""
    grains = np.empty((len(inputs), SKETCH), np.int16)
    distances = np.empty(len(inputs))
    sketch = np.empty(SKETCH)
    for i in range(len(inputs)):
        length, _ = project(inputs[i], centre, spread, sketch)
        grains_of(sketch, grains[i])
        distances[i] = math.sqrt(length / inputs.shape[1])
    return grains, distances
