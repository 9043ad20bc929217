// CUDA kernels of Q-learning targets, as td_kernel.inc.
#pragma once
#include "../common/cuda/team.cuh"
#include "../common/cuda/types.cuh"
#include "targets.h"

namespace automl_ext {

constexpr int kTdThreads = 128;
constexpr int kTdLanes = 8;                  // per row; together they read a whole 32-byte sector of memory
constexpr int64_t kTdTileBytes = 40 * 1024;  // the most shared memory of a block

// The result for a row whose best action is `action`.
template <class T>
__device__ __forceinline__ void store_target(const TdTargets& x, int64_t row, int64_t action) {
  using C = Compute<T>;
  // At a terminated step the next state's values are ignored, even NaN.
  const bool live = !x.terminated[row];
  const C best = keep(live, load<T>(x.q, row * x.actions + action));
  const C discount = x.discounts ? keep(live, load<T>(x.discounts, row)) : C(x.gamma);
  store<T>(x.out, row, load<T>(x.rewards, row) + discount * best);
}

// One thread per row. A block first copies its rows to shared memory, in adjacent packs if `packed`: the selector is aligned
// to 16 bytes.
template <class T>
__global__ void __launch_bounds__(kTdThreads) td_short_rows(const TdTargets x, bool packed) {
  KERNEL_DYNAMIC_SHARED(T, tile);
  using C = Compute<T>;
  using Values = Pack<uint32_t, 4>;
  constexpr int width = int(sizeof(Values) / sizeof(T));
  const int n = int(x.actions), thread = int(threadIdx.x);
  for (int64_t first = blockIdx.x * int64_t(kTdThreads); first < x.rows; first += gridDim.x * int64_t(kTdThreads)) {
    const int64_t left = x.rows - first;
    const int rows = left < kTdThreads ? int(left) : kTdThreads;
    const T* const from = static_cast<const T*>(x.selector) + first * n;
    const int packs = packed ? rows * n / width : 0;
    __syncthreads();  // all threads have read the previous tile
    for (int i = thread; i < packs; i += kTdThreads)
      reinterpret_cast<Values*>(tile)[i] = reinterpret_cast<const Values*>(from)[i];
    for (int i = packs * width + thread; i < rows * n; i += kTdThreads) tile[i] = from[i];
    __syncthreads();
    if (thread >= rows) continue;
    // The lowest index of the maximum. NaN counts as larger than any number. Each thread begins elsewhere in its row, because
    // rows of an even length begin in few banks of shared memory.
    const T* const row = tile + thread * n;
    const int begin = thread % n;
    C top = -infinity<C>();
    int action = n;
    for (int k = 0, j = begin; k < n; ++k, j = j + 1 < n ? j + 1 : 0) {
      const C v = widen(row[j]);
      const bool better = !(v <= top) && top == top, same = v == top || (v != v && top != top);
      action = better || (same && j < action) ? j : action;
      top = better ? v : top;
    }
    store_target<T>(x, first + thread, action);
  }
}

// kTdLanes adjacent lanes process one row.
template <class T>
__global__ void __launch_bounds__(kTdThreads) td_long_rows(const TdTargets x) {
  constexpr int64_t rows = kTdThreads / kTdLanes;  // per block
  using C = Compute<T>;
  const WarpTeam<kTdLanes> team;
  for (int64_t first = blockIdx.x * rows; first < x.rows; first += gridDim.x * rows) {
    // Lanes beyond the last row repeat it, because all lanes must take part in the reductions.
    const int64_t own_row = first + threadIdx.x / kTdLanes, row = own_row < x.rows ? own_row : x.rows - 1;
    const int64_t begin = row * x.actions;
    // The lowest index of the maximum, first of this lane's actions. NaN counts as larger than any number.
    C own_top = -C(INFINITY);
    int64_t own = team.rank();
    for (int64_t j = team.rank(); j < x.actions; j += kTdLanes) {
      const C v = load<T>(x.selector, begin + j);
      const bool better = own_top == own_top && !(v <= own_top);
      own_top = better ? v : own_top;
      own = better ? j : own;
    }
    const C top = team.largest(own_top);
    const bool is_top = own_top == top || (own_top != own_top && top != top);
    const int64_t action = team.smallest(is_top && own < x.actions ? own : x.actions - 1);
    if (team.rank() == 0 && own_row == row) store_target<T>(x, row, action);
  }
}

}  // namespace automl_ext
