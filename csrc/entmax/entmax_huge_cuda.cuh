// Parts, workspace and the second launch for rows that do not fit shared memory.
#pragma once
#include "../common/cuda/launch.cuh"
#include "entmax_huge_kernels.cuh"

namespace automl_ext {

// The number of parts of a row of n elements, of which the first may begin before the row.
inline int64_t huge_parts(int64_t n, int threads) { return blocks(n, threads * kHugeItems); }

// Arrays one after another, each aligned to 16 bytes.
class Carver {
 public:
  explicit Carver(void* start) : start_(static_cast<char*>(start)) {}
  template <class X>
  X* take(int64_t count) {
    char* const at = start_ ? start_ + bytes_ : nullptr;
    bytes_ += (count * int64_t(sizeof(X)) + 15) / 16 * 16;
    return reinterpret_cast<X*>(at);
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* start_;
  int64_t bytes_ = 0;
};

template <class V>
HugeRows<V> huge_rows(const V* values, int64_t rows, int64_t n, int64_t parts, int threads, Carver& memory) {
  HugeRows<V> huge{rows, n, parts, threads * kHugeItems, values, nullptr, nullptr, nullptr};
  using C = Compute<V>;
  huge.summaries = memory.take<PartSummary<C>>(rows * parts);
  huge.thresholds = memory.take<RowThreshold<C>>(rows);
  huge.lists = memory.take<V>(rows * parts * huge.listed());
  return huge;
}

template <int power, class V>
void launch_huge_thresholds(const HugeRows<V>& rows, int64_t rows_per_group, int window, cudaStream_t stream) {
  KERNEL_LAUNCH((entmax_huge_thresholds<power, V>), grid_of(rows.count), kRowThreads,
                kHugeCandidates<Compute<V>> * sizeof(Compute<V>), stream, rows, rows_per_group, window);
}

}  // namespace automl_ext
