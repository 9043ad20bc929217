// CUDA kernel of scans over time. A thread processes a chunk of kScanItems consecutive steps of one column and loads
// all of them before it computes the first. Adjacent threads process adjacent columns. A block iterates over time in
// tiles of blockDim.y chunks.
#pragma once
#include "scan_ops.cuh"

namespace automl_ext {

constexpr int kScanThreads = 256;

// The number of steps of a column that a thread keeps in registers.
template <class Op>
constexpr int kScanItems = sizeof(typename Op::Step) > 24 ? 4 : 8;

template <class C>
__device__ __forceinline__ bool is_finite(C value) {
  return value - value == 0;
}

// The affine map of the state over a chunk. `holds` is false where the map overflowed; the chunk is then computed step
// by step.
template <class C>
struct alignas(16) ChunkMap {
  C add, multiply;
  uint32_t cut, holds;
};
template <class C>
__device__ __forceinline__ ChunkMap<C> chunk_map(const Affine<C>& map) {
  return {map.add, map.multiply, map.cut, uint32_t(is_finite(map.add) && (map.cut || is_finite(map.multiply)))};
}

// The state after steps [begin, end) of a column, computed step by step. Steps are numbered in scan order.
template <class Op>
__device__ typename Op::C scan_walk(const Op& op, int64_t column, int64_t begin, int64_t end, typename Op::C state) {
#pragma unroll 1
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = Op::backward_in_time ? op.x.steps - 1 - i : i, at = t * op.x.columns + column;
    state = op.map(op.load_step(flags_at(op.x, t, at), at, t + 1 >= op.x.steps)).at(state);
  }
  return state;
}

// blockDim.x columns, blockDim.y chunks of time.
template <class Op>
__global__ void __launch_bounds__(kScanThreads, 2) scan(const Trajectory x) {
  using C = typename Op::C;
  constexpr int items = kScanItems<Op>;
  KERNEL_SHARED(ChunkMap<C>, both_maps, 2 * kScanThreads);
  const Op op(x);
  const int chunks = blockDim.y, chunk = threadIdx.y;
  // Threads beyond the last column read the last column and write nothing.
  const int64_t own_column = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t column = own_column < x.columns ? own_column : x.columns - 1;
  const int64_t stride = Op::backward_in_time ? -x.columns : x.columns;
  const int64_t last_row = (x.steps - 1) * x.columns;
  C carry = 0;  // the state before the tile, the same in every thread of the column
  bool odd = false;
  for (int64_t tile = 0; tile < x.steps; tile += int64_t(chunks) * items, odd = !odd) {
    // Items beyond the end repeat the last step; their state is not used.
    const int64_t end = x.steps - tile - int64_t(chunk) * items;  // steps from this thread's first to the end
    const int64_t first = end > 0 ? x.steps - end : x.steps - 1;
    const int64_t first_t = Op::backward_in_time ? x.steps - 1 - first : first;
    const int64_t first_at = first_t * x.columns + column;
    typename Op::Step steps[items];
    int64_t at = first_at;
    uint32_t valid;  // the flag of the later of two adjacent steps
    if (Op::backward_in_time)
      valid = at < last_row ? valid_at(x, at + x.columns) : 0;
    else
      valid = valid_at(x, at);
#pragma unroll
    for (int j = 0; j < items; ++j) {
      const bool last = at >= last_row;
      const uint32_t before = valid;
      valid = Op::backward_in_time ? valid_at(x, at) : last ? 0 : valid_at(x, at + x.columns);
      const Flags flags = Op::backward_in_time ? flags_at(x, at, valid, before) : flags_at(x, at, before, valid);
      steps[j] = op.load_step(flags, at, last);
      at += j + 1 < end ? stride : 0;
    }

    C state = carry;
    if (chunks > 1) {
      Affine<C> map = op.map(steps[0]);
#pragma unroll
      for (int j = 1; j < items; ++j) map = op.map(steps[j]).after(map);
      // Double-buffered: before a thread writes a half, all threads have read its old content, because that happened
      // before the barrier of the previous tile.
      ChunkMap<C>* const maps = both_maps + (odd ? kScanThreads : 0) + threadIdx.x;
      maps[chunk * blockDim.x] = chunk_map(map);
      __syncthreads();
      for (int k = 0; k < chunks; ++k) {
        if (k == chunk) state = carry;
        const ChunkMap<C> next = maps[k * blockDim.x];
        // A product that underflowed to 0 would give NaN for an infinite state.
        if (next.holds && fabs(carry) != infinity<C>()) {
          carry = Affine<C>{next.add, next.multiply, next.cut}.at(carry);
        } else {
          const int64_t from = tile + k * items, to = from + items;
          carry = scan_walk(op, column, from, to < x.steps ? to : x.steps, carry);
        }
      }
    }
    at = first_at;
#pragma unroll
    for (int j = 0; j < items; ++j, at += stride)
      state = op.emit(steps[j], at, j < end && own_column < x.columns, state);
    if (chunks == 1) carry = state;
  }
}

}  // namespace automl_ext
