// Targets of Q-learning on CUDA, as td_kernel.inc: some neighbouring lanes a row.
#pragma once
#include "../common/cuda/team.cuh"
#include "targets.h"

namespace automl_ext {

constexpr int kTdThreads = 128;
constexpr int kTdLanes = 8;  // of a row: they read a whole sector of memory at once

template <class T>
__global__ void __launch_bounds__(kTdThreads) td_rows(const TdTargets x) {
  constexpr int64_t rows = kTdThreads / kTdLanes;  // of a block
  using C = Compute<T>;
  const WarpTeam<kTdLanes> team;
  for (int64_t first = blockIdx.x * rows; first < x.rows; first += gridDim.x * rows) {
    // Lanes beyond the last row repeat it, for all take part in every reduction.
    const int64_t mine = first + threadIdx.x / kTdLanes, row = mine < x.rows ? mine : x.rows - 1;
    const int64_t begin = row * x.actions;
    C top = -C(INFINITY);
    for (int64_t j = team.rank(); j < x.actions; j += kTdLanes) top = larger(top, load<T>(x.judge, begin + j));
    top = team.largest(top);
    // The lowest index of the largest; of NaN, which is larger than all, the first.
    int64_t action = x.actions - 1;
    for (int64_t j = team.rank(); j < action; j += kTdLanes) {
      const C v = load<T>(x.judge, begin + j);
      if (v == top || v != v) action = j;
    }
    action = team.smallest(action);
    // Nothing of a terminated step's next state counts, be it NaN.
    const bool live = !x.terminated[row];
    const C best = keep(live, load<T>(x.q, begin + action));
    const C discount = x.discounts ? keep(live, load<T>(x.discounts, row)) : C(x.gamma);
    if (team.rank() == 0 && mine == row) store<T>(x.out, row, load<T>(x.rewards, row) + discount * best);
  }
}

}  // namespace automl_ext
