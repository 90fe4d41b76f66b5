"""Whether nuclei and transcripts lie on one another: how well nuclei explain transcripts, shifted and turned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage
from skimage.measure import block_reduce

from sslcst.core.spots import inside_raster
from sslcst.errors import DataError

_LARGEST = 2048  # bins along an axis of a map
_ACROSS = 8  # bins a nucleus, where that makes no larger map
_WINDOW = 512  # bins along an axis among which the placement is sought first
_REACH = 16  # nucleus diameters that are searched by default
_SCALES = (0.1, 0.2, 0.4, 0.8)  # standard deviations in nucleus diameters: transcripts; nuclei; cells; around them
_FOUND, _GAINED = 20, 8  # times the score of a random placement; see `Alignment`
_TOLERANCE = 0.25  # nucleus diameters
_PLACED = 10  # times the mean score as placed; mirrored tissues reach 8, since nuclei next to the axis stay in place
_ENOUGH = 80  # nuclei, with which well-placed data have always told so
_NEAR, _FAR = 0.5, 2  # nucleus diameters from a nucleus: there is cell, and there is another one or none


@dataclass(frozen=True)
class Alignment:
    """How nuclei lie to transcripts, and where they would lie best.

    A score is the share of the transcripts' local contrast that two maps explain, that of the nuclei and that of what
    lies around them within half a diameter, by least squares: whether nuclei hold more transcripts than the cytoplasm
    or fewer, cells stand out from what lies between them. Under a random placement the scores follow an exponential
    distribution, so that of a hundred thousand the largest is some 12 times their mean. Lengths are in units.
    """

    share: float  #: Share of the transcripts that lie in nuclei, as placed
    best_share: float  #: After the shift and turn
    score: float  #: The score as placed
    best_score: float  #: After the shift and turn
    noise: float  #: Mean score over all shifts and turns that were tried
    shift: tuple[float, float]  #: Along y and x, how far the nuclei would have to move, at the middle of the map
    angle: float  #: By how many degrees they would have to turn about it, from y towards x
    displacement: float  #: Root mean square of the way that this is
    diameter: float  #: Of a nucleus
    middle: tuple[float, float]  #: Of the map, along y and x from its corner

    @property
    def found(self) -> bool:
        """Whether the best placement stands out from chance."""
        return self.best_score > _FOUND * self.noise

    @property
    def misaligned(self) -> bool:
        """Whether another placement is better beyond doubt, and farther off than a quarter of a nucleus' diameter."""
        gained = self.best_score - self.score > _GAINED * self.noise
        return self.found and gained and self.displacement > _TOLERANCE * self.diameter

    def is_doubtful(self, n_nuclei: int) -> bool:
        """Whether so many nuclei should tell that they lie on the transcripts, and do not."""
        return n_nuclei >= _ENOUGH and not self.found and self.score < _PLACED * self.noise

    @property
    def matrix(self) -> np.ndarray:
        """From where nuclei lie to where they belong: affine (3, 3) on (y, x), in units from the map's corner."""
        return _move(self.shift) @ _turn(np.deg2rad(self.angle), self.middle)

    def __str__(self) -> str:
        if not self.found:
            return "Nothing tells whether stain and transcripts lie on one another: no placement stands out."
        return (
            f"Stain and transcripts {'do not lie' if self.misaligned else 'lie'} on one another: nuclei explain "
            f"{self.score:.1%} of where transcripts lie as placed ({self.share:.1%} are inside), and "
            f"{self.best_score:.1%} ({self.best_share:.1%}) shifted by {self.shift[0]:.3g} along y and "
            f"{self.shift[1]:.3g} along x and turned by {self.angle:.2g} degrees."
        )


def coarse_step(shape: tuple[int, int], diameter: float = 0) -> int:
    """Pixels along the side of a bin of the maps of a raster of this shape, with nuclei of this diameter in pixels.

    It is a multiple of the one without a diameter, which makes the finest map.
    """
    finest = -(-max(shape) // _LARGEST)
    return finest * max(1, int(diameter // (_ACROSS * finest)))


def coarse_mean(mask: np.ndarray, step: int) -> np.ndarray:
    """Share of the pixels of each bin that a mask (y, x) covers, float32."""
    whole_bins = np.pad(mask, [(0, -size % step) for size in mask.shape], mode="edge")
    return block_reduce(whole_bins, step, np.mean, func_kwargs={"dtype": np.float32})


def coarse_counts(yx: np.ndarray, count: np.ndarray | None, shape: tuple[int, int], step: int) -> np.ndarray:
    """Molecules in each bin, float64; of positions (n, 2) in pixels of a raster, of which those off it are left out.

    Maps of parts of the transcripts add up to that of all.
    """
    height, width = (-(-size // step) for size in shape)
    on = inside_raster(yx, shape)
    row, column = (yx[on] / step).astype(np.intp).T
    weights = None if count is None else count[on]
    return np.bincount(row * width + column, weights, minlength=height * width).reshape(height, width).astype(float)


def find_alignment(
    nuclei: np.ndarray,
    counts: np.ndarray,
    *,
    diameter: float,
    bin_size: float = 1.0,
    max_shift: float | None = None,
    max_angle: float = 5.0,
    whole: bool = True,
) -> Alignment:
    """Find the shift and turn that lay nuclei on transcripts.

    Scores of all shifts come from Fourier transforms (masked as by Padfield 2012), of one angle after the other, within
    a window that holds much of both; the best is then refined, to a part of a bin, over the `whole` of a map larger
    than the window (512 bins), without which it takes a second.

    `nuclei` is the share of each bin that they cover (`coarse_mean`), `counts` are the molecules in it
    (`coarse_counts`), both (rows, columns). In units are the diameter of a nucleus, the side of a bin, and the largest
    shift that is tried, as far as half the map; by default 16 diameters, as far as a quarter of the window. The largest
    angle is in degrees. A `DataError` says that there are no nuclei, or no transcripts on the map.
    """
    if not nuclei.any() or not counts.any():
        raise DataError("There are no nuclei, or no transcripts where the nuclei are: they cannot be compared.")
    across = diameter / bin_size
    reach, window = _search_area(nuclei, counts, across, None if max_shift is None else max_shift / bin_size)
    around = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in window)
    corner = np.array([side.start for side in around])
    search = _Search(*_contrasts(nuclei[around], counts[around], across), window, corner, reach)
    angles = search.angles(across, np.deg2rad(max_angle))
    scores = [search.scores(_turn(angle, search.middle)) for angle in angles]
    best = int(np.argmax([each.max() for each in scores]))
    step = (angles[-1] - angles[0]) / max(1, len(angles) - 1)
    matrix, best_score = search.refine(_turn(angles[best], search.middle), step)
    displacement = search.displacement(matrix)
    if whole and search.shape != nuclei.shape:
        everything = tuple(slice(0, size) for size in nuclei.shape)
        near = _Search(*_contrasts(nuclei, counts, across), everything, np.zeros(2), int(2 * across))
        matrix, _ = near.refine(matrix, near.angle_step(across) / 2 if max_angle else 0)
        displacement = near.displacement(matrix)

    middle = np.array(nuclei.shape) / 2
    placed = _place(nuclei, matrix, np.zeros(2), nuclei.shape)
    total = counts.sum()
    return Alignment(
        share=float((counts * nuclei).sum() / total),
        best_share=float((counts * placed).sum() / total),
        score=float(search.scores(np.eye(3))[reach, reach]),
        best_score=float(best_score),
        noise=float(np.mean(scores)),
        shift=tuple(((matrix[:2, :2] @ middle + matrix[:2, 2] - middle) * bin_size).tolist()),
        angle=float(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))),
        displacement=float(displacement * bin_size),
        diameter=float(diameter),
        middle=tuple((middle * bin_size).tolist()),
    )


def share_without_nuclei(nuclei: np.ndarray, counts: np.ndarray, across: float) -> float:
    """Share of the transcripts that lie far from all nuclei, though as dense there as in tissue.

    It is 0 where those far off are fewer, by area, than a quarter of those in and next to nuclei: they lie between
    cells. Maps are those of `find_alignment`, and a nucleus measures `across` bins.
    """
    distance = ndimage.distance_transform_edt(nuclei == 0)
    near, far = distance <= _NEAR * across, distance > _FAR * across
    if not near.any() or not far.any() or counts[far].mean() < counts[near].mean() / 4:
        return 0.0
    return float(counts[far].sum() / counts.sum())


def _contrasts(nuclei: np.ndarray, counts: np.ndarray, across: float) -> tuple[np.ndarray, np.ndarray]:
    """Maps of what stands out from its surroundings: (2, rows, columns) of nuclei, orthonormal, and of transcripts.

    Of transcripts it is the difference of square roots, whose noise does not depend on the density.
    """
    fine, nucleus, cell, around = (scale * across for scale in _SCALES)
    blurred = [ndimage.gaussian_filter(nuclei.astype(np.float32), sigma) for sigma in (nucleus, cell, around)]
    features = np.stack([blurred[0] - blurred[1], blurred[1] - blurred[2]])
    features[1] -= features[0] * (features[0] * features[1]).mean() / np.maximum((features[0] ** 2).mean(), 1e-12)
    features /= np.sqrt(np.maximum((features**2).mean(axis=(1, 2), keepdims=True), 1e-12))
    near, wide = (ndimage.gaussian_filter(counts.astype(np.float32), sigma) for sigma in (fine, around))
    return features, np.sqrt(np.maximum(near, 0)) - np.sqrt(np.maximum(wide, 0))


def _search_area(
    nuclei: np.ndarray, counts: np.ndarray, across: float, max_shift: float | None
) -> tuple[int, tuple[slice, slice]]:
    """Bins that are tried along each axis, and the window that holds most of both nuclei and transcripts."""
    shape = np.array(nuclei.shape)
    if max_shift is None:
        size = np.minimum(shape, _WINDOW)
        reach = int(min(_REACH * across, size.min() // 4))
    else:
        reach = int(min(np.ceil(max_shift), shape.min() // 2))
        size = np.minimum(shape, max(_WINDOW, 4 * reach))
    rich = ndimage.uniform_filter(nuclei, size, np.float32) * ndimage.uniform_filter(counts, size, np.float32)
    low, high = size // 2, shape - (size - size // 2)
    inside = rich[low[0] : high[0] + 1, low[1] : high[1] + 1]
    corner = np.unravel_index(np.argmax(inside), inside.shape)
    return reach, tuple(slice(int(start), int(start + n)) for start, n in zip(corner, size, strict=True))


class _Search:
    """Scores of placements within a window of a map, for all shifts by whole bins up to a reach.

    `features` and `target` are a part of the map around the window, from the bin `corner` on.
    """

    def __init__(
        self, features: np.ndarray, target: np.ndarray, window: tuple[slice, slice], corner: np.ndarray, reach: int
    ) -> None:
        self.features, self.reach = features, reach
        self.start = np.array([side.start for side in window])
        self.shape = tuple(side.stop - side.start for side in window)
        self.middle = self.start + np.array(self.shape) / 2
        self.lever = np.sqrt(np.square(self.shape).sum() / 12)  # root mean square distance from the middle
        self.corner, self.extent = corner, target.shape
        low = self.start - corner
        part = target[tuple(slice(int(a), int(a + n)) for a, n in zip(low, self.shape, strict=True))]
        self.padded = [fft.next_fast_len(size + reach, real=True) for size in self.shape]
        self.part, self.square, self.one = map(self._forward, (part, part**2, np.ones_like(part)))
        self.energy = (part**2).sum()

    def angle_step(self, across: float) -> float:
        """Radians that move bins by 0.4 of a nucleus' diameter."""
        return 0.4 * across / self.lever

    def angles(self, across: float, largest: float) -> np.ndarray:
        n = int(np.ceil(largest / self.angle_step(across)))
        return np.linspace(-largest, largest, 2 * n + 1) if n else np.zeros(1)

    def displacement(self, matrix: np.ndarray) -> float:
        """Root mean square of the way that the window's bins go."""
        moved = matrix[:2, :2] @ self.middle + matrix[:2, 2] - self.middle
        return np.sqrt((moved**2).sum() + (self.lever * np.linalg.norm(matrix[:2, :2] - np.eye(2), ord=2)) ** 2)

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """Scores (2 reach + 1, 2 reach + 1) of a placement that is shifted further."""
        inner = _move(-self.corner) @ matrix @ _move(self.corner)
        start = self.start - self.corner
        on = _place(np.ones(self.extent, np.float32), inner, start, self.shape) > 0.5
        features = [_place(each, inner, start, self.shape) * on for each in self.features]
        weight = sum(each**2 for each in features) / 2
        fit = sum(self._correlate(self._forward(each), self.part) ** 2 for each in features)
        explaining = self._correlate(self._forward(weight), self.one)
        explained = self._correlate(self._forward(on), self.square)
        enough = (explaining > 0.1 * weight.sum()) & (explained > 0.1 * self.energy)
        return np.divide(fit, explaining * explained, out=np.zeros_like(fit), where=enough)

    def refine(self, matrix: np.ndarray, step: float) -> tuple[np.ndarray, float]:
        """The best placement near one, its angle and then its shift by the vertex of a parabola; and its score."""
        while step > 0.05 / self.lever:  # a twentieth of a bin
            step /= 2.5
            turned = [_turn(angle, self.middle) @ matrix for angle in (-step, 0, step)]
            vertex = _vertex(*(self.scores(each).max() for each in turned))
            matrix = _turn(step * vertex, self.middle) @ matrix
        scores = self.scores(matrix)
        row, column = np.unravel_index(np.argmax(scores), scores.shape)
        framed = np.pad(scores, 1, mode="edge")
        shift = (
            row - self.reach + _vertex(*framed[row : row + 3, column + 1]),
            column - self.reach + _vertex(*framed[row + 1, column : column + 3]),
        )
        return _move(shift) @ matrix, scores.max()

    def _forward(self, values: np.ndarray) -> np.ndarray:
        return fft.rfft2(values.astype(np.float32), self.padded)

    def _correlate(self, moved: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        shifts = np.arange(-self.reach, self.reach + 1)
        return fft.irfft2(np.conj(moved) * fixed, self.padded)[np.ix_(shifts, shifts)]


def _vertex(left: float, middle: float, right: float) -> float:
    """Place of the highest point of the parabola through three values, in steps from the middle, at most 1 away."""
    bend = left - 2 * middle + right
    return float(np.clip((left - right) / (2 * bend), -1, 1)) if bend < 0 else float(np.sign(right - left))


def _turn(angle: float, center: np.ndarray | tuple[float, float]) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    matrix[:2, 2] = center - matrix[:2, :2] @ center
    return matrix


def _move(shift: tuple[float, float]) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, 2] = shift
    return matrix


def _place(values: np.ndarray, matrix: np.ndarray, start: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """What a map shows in a window once it is moved; bin i reaches from i to i + 1, and beyond the map is 0."""
    back = np.linalg.inv(matrix)
    linear = back[:2, :2]  # on indices, which are of the bins' middles
    offset = linear @ (start + 0.5) + back[:2, 2] - 0.5
    return ndimage.affine_transform(values, linear, offset, output_shape=shape, order=1)
