// The categorical projection on CUDA, in double: as project_row of projection_kernel.inc, but every atom of the result
// gathers what the atoms of the distribution bring to it, in their order. Their places on the grid rise with the atom,
// so that those concerned are neighbours.
#pragma once
#include "../common/cuda/team.cuh"
#include "targets.h"

namespace automl_ext {

constexpr int kProjectionThreads = 128;
constexpr int64_t kWarpAtoms = 256;  // the most atoms of a row that one warp projects

// Where the atoms of a row go. Index counts atoms.
template <class Index>
struct Places {
  double reward, discount, v_min, v_max, step, scale;
  Index atoms;

  // The atom that comes i-th on the grid.
  __device__ __forceinline__ Index atom(Index i) const { return discount < 0 ? atoms - 1 - i : i; }
  // Its place in units of the spacing, from 0 to atoms - 1; never falls with i, whatever the rounding.
  __device__ __forceinline__ double at(Index i) const {
    const Index j = atom(i), from_end = atoms - 1 - j;
    // From the nearer end, so that the last atom is v_max itself.
    const double middle = v_min + 0.5 * (v_max - v_min);
    const double low = v_min + double(j) * step, high = v_max - double(from_end) * step;
    const double z = j <= from_end ? (low > middle ? middle : low) : (high < middle ? middle : high);
    const double position = reward + discount * z;
    return ((position < v_min ? v_min : position > v_max ? v_max : position) - v_min) * scale;  // NaN stays
  }
};

template <class T, class Index>
__device__ __forceinline__ Places<Index> places_of_row(const Projection& x, int64_t row) {
  const double range = x.v_max - x.v_min, spacings = double(x.atoms - 1);
  const double discount = x.discounts ? double(load<T>(x.discounts, row)) : x.gamma;
  return {double(load<T>(x.rewards, row)), x.terminated[row] ? 0 : discount, x.v_min, x.v_max, range / spacings,
          spacings / range, Index(x.atoms)};
}

// How much of the mass at a place goes to an atom not more than one spacing away. Of the two beside it the lower is at
// most atoms - 2, so that there is an upper one.
template <class Index>
__device__ __forceinline__ double share_of(Index atom, double place, Index atoms) {
  const bool lower = atom < atoms - 1 && place >= double(atom);
  const double fraction = place - double(lower ? atom : atom - 1), to_upper = fraction > 1 ? 1 : fraction;
  return lower ? 1 - to_upper : to_upper;
}

// The mass of an atom. place(i) is that of the atom that comes i-th, probability(i) its probability.
template <class Index, class Place, class Probability>
__device__ __forceinline__ double gather_mass(Index atom, Index atoms, const Place& place,
                                              const Probability& probability) {
  Index begin = 0, end = atoms;  // the first that is less than a spacing below
  while (begin < end) {
    const Index middle = begin + (end - begin) / 2;
    if (place(middle) < double(atom - 1))
      begin = middle + 1;
    else
      end = middle;
  }
  double mass = 0;
  for (Index i = begin; i < atoms; ++i) {
    const double at = place(i);
    if (at >= double(atom + 1) && atom < atoms - 2) break;
    mass += probability(i) * share_of(atom, at, atoms);
  }
  return mass;
}

__device__ __forceinline__ void sync(const WarpTeam<32>&) { __syncwarp(); }
__device__ __forceinline__ void sync(const BlockTeam&) { __syncthreads(); }

// scratch: room for a place per atom, or null: then they are computed whenever they are wanted.
template <class T, class Index, class Team>
__device__ __forceinline__ void project_row(const Team& team, const Projection& x, int64_t row, double* scratch) {
  const Places<Index> places = places_of_row<T, Index>(x, row);
  const Index atoms = places.atoms;
  const T* const p = static_cast<const T*>(x.probs) + row * atoms;
  T* const out = static_cast<T*>(x.out) + row * atoms;
  sync(team);                // the scratch of the row before has been read
  double sums[2] = {0, 0};  // of the distribution; how many places are NaN
  for (Index i = team.rank(); i < atoms; i += team.size()) {
    const double place = places.at(i);
    if (scratch) scratch[i] = place;
    sums[0] += double(widen(p[i]));
    sums[1] += place != place;
  }
  team.sum(sums);
  sync(team);
  // Only the sum of a terminated step's next distribution counts; where that is no number, it is one.
  const bool finite = sums[0] - sums[0] == 0, garbage = x.terminated[row] && !finite;
  const bool number = sums[1] == 0 && (finite || garbage);
  // All at one place, as those of a terminated step: no atom alone gathers the whole row.
  const double first = places.at(0), last = places.at(atoms - 1), total = garbage ? 1 : sums[0];
  const auto probability = [&](Index i) { return double(widen(p[places.atom(i)])); };
  for (Index i = team.rank(); i < atoms; i += team.size()) {
    double mass = not_a_number<double>();
    if (number && first == last)
      mass = first > double(i - 1) && first < double(i + 1) ? total * share_of(i, first, atoms) : 0;
    else if (number && scratch)
      mass = gather_mass(i, atoms, [&](Index k) { return scratch[k]; }, probability);
    else if (number)
      mass = gather_mass(i, atoms, [&](Index k) { return places.at(k); }, probability);
    out[i] = narrow<T>(Compute<T>(mass));
  }
}

// A warp a row, of at most kWarpAtoms atoms.
template <class T>
__global__ void __launch_bounds__(kProjectionThreads) projection_short_rows(const Projection x) {
  KERNEL_SHARED(double, scratch, kProjectionThreads / 32 * kWarpAtoms);
  const WarpTeam<32> team;
  constexpr int warps = kProjectionThreads / 32;
  const int warp = threadIdx.x / 32;
  for (int64_t row = int64_t(blockIdx.x) * warps + warp; row < x.rows; row += int64_t(gridDim.x) * warps)
    project_row<T, int>(team, x, row, scratch + warp * kWarpAtoms);
}

// A block a row; `shared` says whether there is dynamic shared memory for the places.
template <class T>
__global__ void __launch_bounds__(1024) projection_long_rows(const Projection x, bool shared) {
  KERNEL_DYNAMIC_SHARED(double, scratch);
  const BlockTeam team;
  for (int64_t row = blockIdx.x; row < x.rows; row += gridDim.x)
    project_row<T, int64_t>(team, x, row, shared ? scratch : nullptr);
}

}  // namespace automl_ext
