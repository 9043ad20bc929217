// CUDA kernel of scans over time. A thread processes a chunk of kScanItems consecutive steps of one column and loads
// all of them before it computes the first. Adjacent threads process adjacent columns. A block iterates over time in
// tiles of blockDim.y chunks: while it computes one, the next is fetched into the L2 cache. The maps of the chunks are
// combined by shuffles within a warp, and through shared memory between warps, with one barrier per tile.
#pragma once
#include "../common/cuda/team.cuh"
#include "steps.cuh"

namespace automl_ext {

constexpr int kScanThreads = 256;

// The number of steps of a column that a thread keeps in registers.
template <class Scan>
constexpr int kScanItems = sizeof(typename Scan::Step) > 24 ? 4 : 8;

template <class C>
__device__ __forceinline__ bool is_finite(C value) {
  return value - value == 0;
}

// scans::Affine in shared memory. `holds` is false where a map overflowed; the tile is then computed chunk by chunk, and
// such a chunk step by step.
template <class C>
struct alignas(16) ChunkMap {
  C add, multiply;
  uint32_t cut, holds;
};
template <class C, class Map>
__device__ __forceinline__ bool holds(const Map& map) {
  return is_finite<C>(map.add) && (map.cut || is_finite<C>(map.multiply));
}

// The map of the lane `distance` below.
template <class Map>
__device__ __forceinline__ Map map_below(const Map& map, unsigned distance) {
  return {__shfl_up_sync(kAllLanes, map.add, distance), __shfl_up_sync(kAllLanes, map.multiply, distance),
          __shfl_up_sync(kAllLanes, map.cut, distance)};
}

// The state after steps [begin, end) of a column, computed step by step. Steps are numbered in scan order.
template <class Column, class Scan>
__device__ typename Column::Value scan_walk(const Scan& op, int64_t column, int64_t begin, int64_t end,
                                            typename Column::Value state) {
#pragma unroll 1
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = Scan::backward_in_time ? op.x.steps - 1 - i : i;
    const typename Column::Place place{t, t * op.x.columns + column, false};
    state = op.advance(op.load(Column::flags(op.x, place), place), state);
  }
  return state;
}

// blockDim.x columns, blockDim.y chunks of time.
template <template <class> class Op, class T, class Steps>
__device__ __forceinline__ void scan_block_columns(const Trajectory& x) {
  using C = Compute<T>;
  using Scan = Op<Steps>;
  using Map = scans::Affine<Steps>;
  constexpr int items = kScanItems<Scan>;
  constexpr bool backward = Scan::backward_in_time;
  KERNEL_SHARED(ChunkMap<C>, both_maps, 2 * kScanThreads);
  const Scan op{x};
  const int chunks = blockDim.y, chunk = threadIdx.y;
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x, lane = thread % 32, warp = thread / 32;
  const unsigned warps = blockDim.x * blockDim.y / 32;
  const int64_t tile_steps = int64_t(chunks) * items;
  // Threads beyond the last column read the last column and write nothing.
  const int64_t own_column = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t column = own_column < x.columns ? own_column : x.columns - 1;
  const int64_t stride = backward ? -x.columns : x.columns;
  const int64_t last_row = (x.steps - 1) * x.columns;
  C carry = 0;  // the state before the tile, the same in every thread of the column
  bool odd = false;
  for (int64_t tile = 0; tile < x.steps; tile += tile_steps, odd = !odd) {
    // Items beyond the end repeat the last step; their state is not used.
    const int64_t end = x.steps - tile - int64_t(chunk) * items;  // steps from this thread's first to the end
    const int64_t first = end > 0 ? x.steps - end : x.steps - 1;
    const int64_t first_t = backward ? x.steps - 1 - first : first;
    const int64_t first_at = first_t * x.columns + column;
    typename Scan::Step steps[items];
    int64_t at = first_at;
    uint32_t valid;  // the flag of the later of two adjacent steps
    if (backward)
      valid = at < last_row ? valid_at(x, at + x.columns) : 0;
    else
      valid = valid_at(x, at);
#pragma unroll
    for (int j = 0; j < items; ++j) {
      const bool last = at >= last_row;
      const uint32_t before = valid;
      valid = backward ? valid_at(x, at) : last ? 0 : valid_at(x, at + x.columns);
      const auto flags = backward ? Steps::flags(x, at, valid, before) : Steps::flags(x, at, before, valid);
      steps[j] = op.load(flags, {0, at, false, j + tile_steps < end ? stride * tile_steps : 0});
      at += j + 1 < end ? stride : 0;
    }

    C state = carry;
    if (chunks > 1) {
      Map map{C(-0.0), C(1), 0u};
#pragma unroll
      for (int j = 0; j < items; ++j) map = op.advance(steps[j], map);
      // The map of the warp's chunks up to this one, in log steps.
      Map to_here = map;
      for (unsigned distance = blockDim.x; distance < 32; distance *= 2) {
        const Map before = map_below(to_here, distance);
        if (lane >= distance) to_here = to_here.after(before);
      }
      const Map before = map_below(to_here, blockDim.x);
      // A product that underflowed to 0 would give NaN for an infinite state.
      const bool fine = __all_sync(kAllLanes, holds<C>(to_here) && fabs(carry) != infinity<C>());
      // Double-buffered: before a thread writes a half, all threads have read its old content, because that happened
      // before the barrier of the previous tile.
      ChunkMap<C>* const of_warps = both_maps + (odd ? kScanThreads : 0) + threadIdx.x;
      if (lane + blockDim.x >= 32) of_warps[warp * blockDim.x] = {to_here.add, to_here.multiply, to_here.cut, fine};
      __syncthreads();
      const C at_tile = carry;
      bool all_fine = true;
#pragma unroll 4
      for (unsigned w = 0; w < warps; ++w) {
        const ChunkMap<C> next = of_warps[w * blockDim.x];
        if (w == warp) state = carry;
        carry = Map{next.add, next.multiply, next.cut}.at(carry);
        all_fine &= next.holds != 0;
      }
      if (lane >= blockDim.x) state = before.at(state);
      if (!all_fine) {  // in all threads
        ChunkMap<C>* const maps = both_maps + (odd ? 0 : kScanThreads) + threadIdx.x;
        maps[chunk * blockDim.x] = {map.add, map.multiply, map.cut, holds<C>(map)};
        __syncthreads();
        carry = at_tile;
#pragma unroll 1
        for (int k = 0; k < chunks; ++k) {
          if (k == chunk) state = carry;
          const ChunkMap<C> next = maps[k * blockDim.x];
          if (next.holds && fabs(carry) != infinity<C>()) {
            carry = Map{next.add, next.multiply, next.cut}.at(carry);
          } else {
            const int64_t from = tile + k * items, to = from + items;
            carry = scan_walk<Steps>(op, column, from, to < x.steps ? to : x.steps, carry);
          }
        }
        __syncthreads();  // before the next tile writes the maps
      }
    }
    at = first_at;
#pragma unroll
    for (int j = 0; j < items; ++j, at += stride) {
      const C before = state;
      state = op.advance(steps[j], before);
      op.store(steps[j], {0, at, j < end && own_column < x.columns}, before, state);
    }
    if (chunks == 1) carry = state;
  }
}
template <template <class> class Op, class T>
__global__ void __launch_bounds__(kScanThreads, 2) scan(const Trajectory x) {
  scan_block_columns<Op, T, Column<T>>(x);
}
// Invalid steps carry.
template <template <class> class Op, class T>
__global__ void __launch_bounds__(kScanThreads, 2) carrying_scan(const Trajectory x) {
  scan_block_columns<Op, T, Column<T, true>>(x);
}

}  // namespace automl_ext
