"""Small sets of made images on which a network is hard to choose: small objects, textures, and counting.

Every set has 32 × 32 pixels, 6 classes and three colors. Objects and waves are of all strengths down to nothing, so
that accuracy rises slowly with what a network has learned, and not from chance to all at once. ``variant`` selects
other glyphs, textures or things to count, with equal statistics: what is chosen on one variant can be judged on
another.
"""

from __future__ import annotations

import numpy as np

SIDE, CLASSES = 32, 6


def objects(count: int, seed: int, variant: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make pictures of one of six glyphs of 5 × 5 pixels at a random place, on noise."""
    glyphs = np.random.default_rng(100 + variant).random((CLASSES, 5, 5)) < 0.5
    rng = np.random.default_rng(seed)
    images, labels = _background(rng, count, 16), np.arange(count) % CLASSES
    for picture, label in zip(images, labels, strict=True):
        _paint(picture, glyphs[label], _strength(rng) * _contrast(rng), rng)
    return images.clip(0, 255).astype(np.uint8), labels


def textures(count: int, seed: int, variant: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make noise with one of six spectra, of different directions and lengths of waves, below white noise."""
    kinds = np.random.default_rng(200 + variant)
    u, v = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    spectra = []
    for k in range(CLASSES):
        center, direction = kinds.uniform(0.12, 0.3), np.pi * k / CLASSES + kinds.uniform(0, 0.3)
        spectra.append(np.exp(-(((radius - center) / 0.06) ** 2)) * np.exp(2.0 * (np.cos(2 * (angle - direction)) - 1)))
    rng = np.random.default_rng(seed)
    images, labels = _background(rng, count, 50), np.arange(count) % CLASSES
    for picture, label in zip(images, labels, strict=True):
        wave = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) * spectra[label]).real
        picture += 17 * _strength(rng) * (wave / wave.std())[..., None] * rng.uniform(0.5, 1, 3)
    return images.clip(0, 255).astype(np.uint8), labels


def counting(count: int, seed: int, variant: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make pictures of two to seven spots of one form, of several sizes and colors, beside spots of another form."""
    y, x = np.mgrid[:SIDE, :SIDE]
    rng = np.random.default_rng(seed)
    images, labels = _background(rng, count, 15), np.arange(count) % CLASSES
    for picture, label in zip(images, labels, strict=True):
        taken: list[tuple[float, float, float]] = []
        others = rng.integers(0, 4)
        for i in range(label + 2 + others):
            while True:
                r = rng.uniform(1.5, 3.0)
                a, b = rng.uniform(r, SIDE - r, 2)
                if all(np.hypot(a - c, b - d) > r + e + 0.5 for c, d, e in taken):
                    break
            taken.append((a, b, r))
            distance = np.hypot(x - a, y - b)
            if variant:
                distance = np.maximum(abs(x - a), abs(y - b)) * 1.15
            ring = i >= label + 2
            inside = (distance < r) & ((distance > r - 1.2) | (not ring))
            picture[inside] += _contrast(rng)
    return images.clip(0, 255).astype(np.uint8), labels


def _background(rng: np.random.Generator, count: int, noise: float) -> np.ndarray:
    return rng.uniform(60, 190, (count, 1, 1, 3)) + rng.normal(0, noise, (count, SIDE, SIDE, 3))


def _strength(rng: np.random.Generator) -> float:
    """Return 1 for three in sixteen pictures, 0 for as many, and numbers between these for the others."""
    return min(1.0, max(0.0, rng.uniform(-0.3, 1.3)))


def _contrast(rng: np.random.Generator) -> np.ndarray:
    """Return the difference of a color to the background: one sign, at least 50 gray levels."""
    return rng.choice([-1, 1]) * rng.uniform(50, 100, 3)


def _paint(picture: np.ndarray, glyph: np.ndarray, color: np.ndarray, rng: np.random.Generator) -> None:
    row, column = rng.integers(0, SIDE - 5, 2)
    picture[row : row + 5, column : column + 5][glyph] += color
