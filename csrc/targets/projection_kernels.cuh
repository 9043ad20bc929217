// CUDA kernels of the categorical projection, in double. As project_row in projection_kernel.inc, but each atom of the
// result gathers the mass that the source atoms contribute to it, in a fixed order. Positions on the grid are an affine
// function of the source atom, whose inverse gives the first contributing atom.
#pragma once
#include "../common/cuda/team.cuh"
#include "../common/cuda/types.cuh"
#include "targets.h"

namespace automl_ext {

constexpr int kProjectionThreads = 128;
constexpr int64_t kWarpAtoms = 256;  // maximum number of atoms of a row that one warp projects

// Units of the grid's spacing per unit of value.
inline double projection_scale(const Projection& x) { return double(x.atoms - 1) / (x.v_max - x.v_min); }

// After the Bellman update, the source atom with the i-th lowest position is at origin + i·spacing on the grid, in units of
// the grid's spacing, clamped to [0, atoms - 1]. scale is projection_scale(x), Index the integer type of atoms.
template <class T, class Index, class Team>
__device__ __forceinline__ void project_row(const Team& team, const Projection& x, double scale, int64_t row) {
  const Index atoms = Index(x.atoms);
  const bool terminated = x.terminated[row];
  const double discount = terminated ? 0 : x.discounts ? double(load<T>(x.discounts, row)) : x.gamma;
  const bool reversed = discount < 0;
  const int64_t stride = reversed ? -1 : 1;
  const T* const source = static_cast<const T*>(x.probs) + row * atoms + (reversed ? atoms - 1 : 0);
  T* const out = static_cast<T*>(x.out) + row * atoms;
  const double lowest = double(load<T>(x.rewards, row)) + discount * (reversed ? x.v_max : x.v_min);
  const double origin = (lowest - x.v_min) * scale, top = double(atoms - 1);
  const double spacing = fabs(discount) < 1e-300 ? 0 : fabs(discount);  // its inverse is finite, or all atoms coincide
  const auto clamped = [&](double at) { return at < 0 ? 0 : at > top ? top : at; };
  const double first = clamped(origin), last = clamped(origin + top * spacing);

  // The atoms at the first and at the last position may be most of the row: those that are clamped, or all at a terminated
  // step. Their sums; and for double, which can overflow, the sum of all. The first is not finite if any atom is not.
  constexpr int count = sizeof(T) == 8 ? 3 : 2;
  double sums[count] = {};
  const T* from = source + team.rank() * stride;
#pragma unroll 1
  for (Index i = team.rank(); i < atoms; i += team.size(), from += team.size() * stride) {
    const Compute<T> mass = widen(*from);
    const double at = origin + double(i) * spacing;
    const bool low = !(at > first), high = !low && !(at < last);
    sums[0] += low || mass - mass != 0 ? double(mass) : 0;
    sums[1] += high ? double(mass) : 0;
    if (count > 2) sums[count - 1] += double(mass);
  }
  team.sum(sums);
  // At a terminated step only the sum of the next distribution is used. If it is not finite, it is taken as 1.
  const bool finite = sums[0] - sums[0] == 0 && sums[count - 1] - sums[count - 1] == 0;
  const bool number = origin == origin && spacing - spacing == 0 && (finite || terminated);
  const double low = finite ? sums[0] : 1, high = finite ? sums[1] : 0;

  const double inverse = (1 - 0x1p-50) / spacing;  // rounding must not skip an atom
#pragma unroll 1
  for (Index a = team.rank(); a < atoms; a += team.size()) {
    const double here = double(a), below = here - 1 > first ? here - 1 : first,
                 above = here + 1 < last ? here + 1 : last;
    const auto share = [&](double at) { return 1 - fabs(at - here); };
    double mass = (share(first) > 0 ? low * share(first) : 0) + (share(last) > 0 ? high * share(last) : 0);
    const double before = (below - origin) * inverse;  // atoms up to this index are not above `below`
    if (first < last && before < top) {
      const Index begin = Index(before) + 1;
      from = source + begin * stride;
#pragma unroll 1
      for (double i = double(begin);; i += 1, from += stride) {
        const double at = origin + i * spacing;
        if (!(at < above)) break;
        mass += at > below ? double(widen(*from)) * share(at) : 0;
      }
    }
    out[a] = narrow<T>(Compute<T>(number ? mass : not_a_number<double>()));
  }
}

// One warp per row of at most kWarpAtoms atoms.
template <class T>
__global__ void __launch_bounds__(kProjectionThreads, 4) projection_short_rows(const Projection x, double scale) {
  constexpr int warps = kProjectionThreads / 32;
  for (int64_t row = int64_t(blockIdx.x) * warps + threadIdx.x / 32; row < x.rows; row += int64_t(gridDim.x) * warps)
    project_row<T, int>(WarpTeam<32>(), x, scale, row);
}

// One block per row.
template <class T>
__global__ void __launch_bounds__(kRowThreads, 1) projection_long_rows(const Projection x, double scale) {
  for (int64_t row = blockIdx.x; row < x.rows; row += gridDim.x) project_row<T, int64_t>(BlockTeam(), x, scale, row);
}

}  // namespace automl_ext
