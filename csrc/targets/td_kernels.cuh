// CUDA kernel of Q-learning targets, as td_kernel.inc. kTdLanes adjacent lanes process one row.
#pragma once
#include "../common/cuda/team.cuh"
#include "../common/cuda/types.cuh"
#include "targets.h"

namespace automl_ext {

constexpr int kTdThreads = 128;
constexpr int kTdLanes = 8;  // per row; together they read a whole 32-byte sector of memory

template <class T>
__global__ void __launch_bounds__(kTdThreads) td_rows(const TdTargets x) {
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
    // At a terminated step the next state's values are ignored, even NaN.
    const bool live = !x.terminated[row];
    const C best = keep(live, load<T>(x.q, begin + action));
    const C discount = x.discounts ? keep(live, load<T>(x.discounts, row)) : C(x.gamma);
    if (team.rank() == 0 && own_row == row) store<T>(x.out, row, load<T>(x.rewards, row) + discount * best);
  }
}

}  // namespace automl_ext
