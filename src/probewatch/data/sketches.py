"""Sketches: inputs as sixteen numbers whose distances are theirs; and exact prints of inputs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from probewatch.data.columns import PRINTS
from probewatch.data.compiled import compiled, inner
from probewatch.data.scales import CLIP, SKETCH

GRAIN = 256.0  # a sketch is kept in so many parts of one, to 127 on either side


@inner
def mix(value):  # type: ignore[no-untyped-def]
    """A well-mixed 64-bit word (the finaliser of splitmix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inner
def distances(grains, kept, k, squares):  # type: ignore[no-untyped-def]
    """Put the squared distances of a sketch from all those kept for ``k`` into ``squares``.

    Those kept lie side by side, number by number, so that all distances grow at once in vector registers.
    """
    for w in range(len(squares)):
        squares[w] = np.float32(0.0)
    for p in range(SKETCH):
        for w in range(len(squares)):
            delta = np.float32(np.int32(grains[p]) - np.int32(kept[k, p, w]))
            squares[w] += delta * delta
    for w in range(len(squares)):
        squares[w] *= np.float32(1.0 / (GRAIN * GRAIN))


@inner
def between(grains, kept, k):  # type: ignore[no-untyped-def]
    """Squared distance of a sketch from the one kept for ``k``."""
    total = np.float32(0.0)
    for p in range(SKETCH):
        delta = np.float32(np.int32(grains[p]) - np.int32(kept[k, p]))
        total += delta * delta
    return total * np.float32(1.0 / (GRAIN * GRAIN))


@inner
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


@inner
def grains_of(sketch, grains):  # type: ignore[no-untyped-def]
    """A sketch as it is kept."""
    for p in range(SKETCH):
        grains[p] = np.int16(min(max(round(sketch[p] * GRAIN), -32767), 32767))


@compiled
def fill_signs(signs):  # type: ignore[no-untyped-def]
    """Fill (SKETCH, D) with random signs, with which distances stay on average (Achlioptas 2003), a quarter each."""
    for d in range(signs.shape[1]):
        word = mix(np.uint64(d + 1) * np.uint64(0x9E3779B97F4A7C15))
        for p in range(SKETCH):
            signs[p, d] = 0.25 - 0.5 * np.float64((word >> np.uint64(p)) & np.uint64(1))  # 0.25 = 1 / sqrt(SKETCH)


@inner
def project(inputs, centre, spread, signs, scaled, sketch):  # type: ignore[no-untyped-def]
    """Scale and cut the inputs into ``scaled``, and project that into ``sketch``; few columns need no projection.

    Returns the squared length of the scaled inputs, and how many inputs left their constant value. A
    model without a scale gets logarithmic inputs, whose differences need no scale: asinh.
    """
    width = len(inputs)
    length, constants = 0.0, 0.0
    if len(centre) == 0:
        for d in range(width):
            scaled[d] = math.asinh(inputs[d])
    else:
        for d in range(width):
            off = inputs[d] - centre[d]
            varies = spread[d] > 0.0
            constants += 1.0 if not varies and off != 0.0 else 0.0
            scaled[d] = off / spread[d] if varies else 0.0
    for d in range(width):
        scaled[d] = min(max(scaled[d], -CLIP), CLIP)
        length += scaled[d] * scaled[d]
    for p in range(SKETCH):
        total = 0.0
        if width > SKETCH:
            for d in range(width):
                total += signs[p, d] * scaled[d]
        elif p < width:
            total = scaled[p]
        sketch[p] = total
    return length, constants


@inner
def digest(inputs, prints, k):  # type: ignore[no-untyped-def]
    """Replace the bytes of the previous query by those of this one.

    Returns a hash of the exact inputs, and the share of the watched inputs that changed.
    """
    bits = inputs.view(np.uint64)
    even, odd = np.uint64(14695981039346656037), np.uint64(1099511628211)  # two at once: each waits for itself only
    changed = 0.0
    width = len(inputs)
    watched = min(width, PRINTS)
    at, place = 0, 0
    for d in range(width):
        word = np.uint64(0) if inputs[d] == 0.0 else bits[d]  # -0.0 is 0.0
        if d % 2 == 0:
            even = mix(even ^ word)
        else:
            odd = mix(odd ^ word)
        if d == place and at < watched:
            byte = np.uint8(mix(word) >> np.uint64(56))
            changed += 1.0 if byte != prints[k, at] else 0.0
            prints[k, at] = byte
            at += 1
            place = at if width <= PRINTS else (at * width) // PRINTS
    return mix(even ^ mix(odd)), changed / watched


def digest_all(inputs: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(N,) hashes of N exact input vectors laid end to end, as a log has them that shows nothing else; 0 for none.

    Args:
        inputs: (M,) all vectors.
        offsets: (N + 1,) where they begin.
    """
    hashes = np.zeros(len(offsets) - 1, np.uint64)
    _digest_all(np.ascontiguousarray(inputs), offsets, np.zeros((1, PRINTS), np.uint8), hashes)
    return hashes


@compiled
def _digest_all(inputs, offsets, prints, hashes):  # type: ignore[no-untyped-def]
    for i in range(len(hashes)):
        if offsets[i + 1] > offsets[i]:
            found, _ = digest(inputs[offsets[i] : offsets[i + 1]], prints, 0)
            hashes[i] = max(found, np.uint64(1))  # 0 says that there is none


def signs_of(width: int) -> NDArray[np.float64]:
    """The (SKETCH, width) signs of the projection of vectors of at most ``width`` inputs; empty if none needs one."""
    signs = np.empty((SKETCH, width if width > SKETCH else 0))
    fill_signs(signs)
    return signs


def sketch_all(
    inputs: NDArray[np.float64], centre: NDArray[np.float64], spread: NDArray[np.float64]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """The (n, SKETCH) kept sketches of (n, D) inputs, and their (n,) distances from the centre."""
    grains = np.empty((len(inputs), SKETCH), np.int16)
    lengths = np.empty(len(inputs))
    _sketch_all(
        np.ascontiguousarray(inputs), centre, spread, signs_of(inputs.shape[1]),
        np.empty(inputs.shape[1]), np.empty(SKETCH), grains, lengths,
    )  # fmt: skip
    return grains, lengths


@compiled
def _sketch_all(inputs, centre, spread, signs, scaled, sketch, grains, lengths):  # type: ignore[no-untyped-def]
    for i in range(len(inputs)):
        length, _ = project(inputs[i], centre, spread, signs, scaled, sketch)
        grains_of(sketch, grains[i])
        lengths[i] = math.sqrt(length / inputs.shape[1])
