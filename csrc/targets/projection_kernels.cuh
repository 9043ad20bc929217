// CUDA kernels of the categorical projection, in double. As project_row in projection_kernel.inc, but each atom of the
// result gathers the mass that the source atoms contribute to it, in a fixed order. Positions on the grid increase with
// the source atom, so the contributing atoms are contiguous.
#pragma once
#include "../common/cuda/team.cuh"
#include "../common/cuda/types.cuh"
#include "targets.h"

namespace automl_ext {

constexpr int kProjectionThreads = 128;
constexpr int64_t kWarpAtoms = 256;  // maximum number of atoms of a row that one warp projects

// The positions of a row's atoms on the grid after the Bellman update. Index is the integer type of atom indices.
template <class Index>
struct Positions {
  double reward, discount, v_min, v_max, step, scale;
  Index atoms;

  // The atom with the i-th lowest position.
  __device__ __forceinline__ Index atom(Index i) const { return discount < 0 ? atoms - 1 - i : i; }
  // The position of that atom in units of the spacing, from 0 to atoms - 1. Non-decreasing in i despite rounding.
  __device__ __forceinline__ double at(Index i) const {
    const Index j = atom(i), from_end = atoms - 1 - j;
    // Computed from the nearer end, so that the last atom is exactly v_max.
    const double middle = v_min + 0.5 * (v_max - v_min);
    const double low = v_min + double(j) * step, high = v_max - double(from_end) * step;
    const double z = j <= from_end ? (low > middle ? middle : low) : (high < middle ? middle : high);
    const double position = reward + discount * z;
    return ((position < v_min ? v_min : position > v_max ? v_max : position) - v_min) * scale;  // NaN is kept
  }
};

template <class T, class Index>
__device__ __forceinline__ Positions<Index> positions_of_row(const Projection& x, int64_t row) {
  const double range = x.v_max - x.v_min, spacings = double(x.atoms - 1);
  const double discount = x.discounts ? double(load<T>(x.discounts, row)) : x.gamma;
  return {double(load<T>(x.rewards, row)),
          x.terminated[row] ? 0 : discount,
          x.v_min,
          x.v_max,
          range / spacings,
          spacings / range,
          Index(x.atoms)};
}

// The fraction of the mass at `position` that goes to an atom at most one spacing away. The lower neighbor of a
// position is at most atoms - 2, so that there is an upper one.
template <class Index>
__device__ __forceinline__ double fraction_of_mass(Index atom, double position, Index atoms) {
  const bool lower = atom < atoms - 1 && position >= double(atom);
  const double fraction = position - double(lower ? atom : atom - 1), to_upper = fraction > 1 ? 1 : fraction;
  return lower ? 1 - to_upper : to_upper;
}

// The mass of an atom of the result. position(i) and probability(i) are those of the atom with the i-th lowest
// position.
template <class Index, class Position, class Probability>
__device__ __forceinline__ double gather_mass(Index atom, Index atoms, const Position& position,
                                              const Probability& probability) {
  Index begin = 0, end = atoms;  // binary search: the first position at least atom - 1
  while (begin < end) {
    const Index middle = begin + (end - begin) / 2;
    if (position(middle) < double(atom - 1))
      begin = middle + 1;
    else
      end = middle;
  }
  double mass = 0;
  for (Index i = begin; i < atoms; ++i) {
    const double at = position(i);
    if (at >= double(atom + 1) && atom < atoms - 2) break;
    mass += probability(i) * fraction_of_mass(atom, at, atoms);
  }
  return mass;
}

__device__ __forceinline__ void sync(const WarpTeam<32>&) { __syncwarp(); }
__device__ __forceinline__ void sync(const BlockTeam&) { __syncthreads(); }

// scratch holds one position per atom. If it is null, positions are recomputed at each use.
template <class T, class Index, class Team>
__device__ __forceinline__ void project_row(const Team& team, const Projection& x, int64_t row, double* scratch) {
  const Positions<Index> positions = positions_of_row<T, Index>(x, row);
  const Index atoms = positions.atoms;
  const T* const p = static_cast<const T*>(x.probs) + row * atoms;
  T* const out = static_cast<T*>(x.out) + row * atoms;
  sync(team);               // all threads have read the scratch of the previous row
  double sums[2] = {0, 0};  // sum of the distribution; number of positions that are NaN
  for (Index i = team.rank(); i < atoms; i += team.size()) {
    const double position = positions.at(i);
    if (scratch) scratch[i] = position;
    sums[0] += double(widen(p[i]));
    sums[1] += position != position;
  }
  team.sum(sums);
  sync(team);
  // At a terminated step only the sum of the next distribution is used. If it is not finite, it is taken as 1.
  const bool finite = sums[0] - sums[0] == 0, ignored = x.terminated[row] && !finite;
  const bool number = sums[1] == 0 && (finite || ignored);
  // If all positions are equal, as at a terminated step, the total is used: otherwise one thread would sum the whole
  // row.
  const double first = positions.at(0), last = positions.at(atoms - 1), total = ignored ? 1 : sums[0];
  const auto probability = [&](Index i) { return double(widen(p[positions.atom(i)])); };
  for (Index i = team.rank(); i < atoms; i += team.size()) {
    double mass = not_a_number<double>();
    if (number && first == last)
      mass = first > double(i - 1) && first < double(i + 1) ? total * fraction_of_mass(i, first, atoms) : 0;
    else if (number && scratch)
      mass = gather_mass(i, atoms, [&](Index k) { return scratch[k]; }, probability);
    else if (number)
      mass = gather_mass(i, atoms, [&](Index k) { return positions.at(k); }, probability);
    out[i] = narrow<T>(Compute<T>(mass));
  }
}

// One warp per row of at most kWarpAtoms atoms.
template <class T>
__global__ void __launch_bounds__(kProjectionThreads, 4) projection_short_rows(const Projection x) {
  KERNEL_SHARED(double, scratch, kProjectionThreads / 32 * kWarpAtoms);
  const WarpTeam<32> team;
  constexpr int warps = kProjectionThreads / 32;
  const int warp = threadIdx.x / 32;
  for (int64_t row = int64_t(blockIdx.x) * warps + warp; row < x.rows; row += int64_t(gridDim.x) * warps)
    project_row<T, int>(team, x, row, scratch + warp * kWarpAtoms);
}

// One block per row. `shared`: whether there is dynamic shared memory for the positions.
template <class T>
__global__ void __launch_bounds__(1024) projection_long_rows(const Projection x, bool shared) {
  KERNEL_DYNAMIC_SHARED(double, scratch);
  const BlockTeam team;
  for (int64_t row = blockIdx.x; row < x.rows; row += gridDim.x)
    project_row<T, int64_t>(team, x, row, shared ? scratch : nullptr);
}

}  // namespace automl_ext
