// Sum tree for proportional sampling (Schaul et al. 2016, appendix B.2.1). Leaves hold priorities; a parent is the sum
// of its eight children, which share a cache line. Host code in float64, without torch.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace automl_ext {

class SumTree {
 public:
  static constexpr int kChildren = 8;
  static constexpr int64_t kMaxLeaves = int64_t(1) << 40;

  explicit SumTree(int64_t capacity) : capacity_(checked(capacity)), limit_(largest_priority(capacity)) {
    int64_t size = capacity;
    do {
      size = (size + kChildren - 1) / kChildren;  // number of groups of children, one per parent
      levels_.emplace_back(size, levels_.empty());
    } while (size > 1);
  }

  int64_t capacity() const { return capacity_; }
  double limit() const { return limit_; }
  double total() const { return total_; }

  // Sets priorities. If an index is repeated, its last priority is kept. All arguments are checked before the first
  // write.
  void set(const int64_t* indices, const double* priorities, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      check_index(indices[i], i);
      check_priority(priorities[i], i);
      __builtin_prefetch(levels_[0].values + indices[i], 1);
    }
    // The changed parents, level by level. Adjacent leaves share parents: consecutive repetitions are summed once.
    std::vector<int64_t>& nodes = changed_;
    nodes.resize(n);
    for (int64_t i = 0; i < n; ++i) {
      levels_[0].values[indices[i]] = priorities[i];
      nodes[i] = indices[i] / kChildren;
    }
    for (size_t level = 0; level < levels_.size(); ++level) {
      nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
      for (int64_t& node : nodes) {
        recompute(level, node);
        node /= kChildren;
      }
    }
  }

  void get(const int64_t* indices, int64_t n, double* priorities) const {
    for (int64_t i = 0; i < n; ++i) check_index(indices[i], i);
    for (int64_t i = 0; i < n; ++i) priorities[i] = levels_[0].values[indices[i]];
  }

  // Stratified sampling: sample i is drawn from the i-th of n equal parts of the total, at the fraction uniforms[i] of
  // it.
  void sample(const double* uniforms, int64_t n, int64_t* indices, double* priorities) const {
    if (!(total_ > 0)) throw std::invalid_argument("SumTree: every priority is 0, there is nothing to sample");
    for (int64_t i = 0; i < n; ++i) {
      if (!(uniforms[i] >= 0 && uniforms[i] < 1)) {
        throw std::invalid_argument("SumTree: uniforms: expected numbers in [0, 1), got " + format(uniforms[i]) +
                                    at(i));
      }
    }
    std::vector<double> masses(n);
    for (int64_t i = 0; i < n; ++i) {
      masses[i] = (double(i) + uniforms[i]) / double(n) * total_;
      indices[i] = 0;
    }
    // All samples descend together, so that their cache misses overlap.
    for (size_t level = levels_.size(); level-- > 1;) {
      const double* sums = levels_[level].sums;
      const double* next = level > 1 ? levels_[level - 1].sums : levels_[0].values;
      for (int64_t i = 0; i < n; ++i) {
        indices[i] = indices[i] * kChildren + descend(sums + indices[i] * kChildren, masses[i]);
        __builtin_prefetch(next + indices[i] * kChildren);
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      double sums[kChildren];
      const double* values = levels_[0].values + indices[i] * kChildren;
      sum_up(values, sums);
      const int64_t chosen = descend(sums, masses[i]);
      indices[i] = indices[i] * kChildren + chosen;
      priorities[i] = values[chosen];
    }
  }

  const double* state() const { return levels_[0].values; }  // [capacity]; the parents follow from it

  void load(const double* priorities) {
    for (int64_t i = 0; i < capacity_; ++i) check_priority(priorities[i], i);
    std::copy(priorities, priorities + capacity_, levels_[0].values);
    for (size_t level = 0; level < levels_.size(); ++level) {
      for (int64_t node = 0; node < levels_[level].groups; ++node) recompute(level, node);
    }
  }

 private:
  // The children of `groups` parents, one cache line per group, and their prefix sums, which sampling compares with.
  // The prefix sums of the leaves are computed when sampling, to save memory.
  struct Level {
    Level(int64_t groups, bool leaves)
        : groups(groups), values(zeros(groups)), sums(leaves ? nullptr : zeros(groups)) {}
    Level(Level&& other) noexcept
        : groups(other.groups),
          values(std::exchange(other.values, nullptr)),
          sums(std::exchange(other.sums, nullptr)) {}
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    ~Level() {
      ::operator delete(values, kLine);
      ::operator delete(sums, kLine);
    }

    static double* zeros(int64_t groups) {
      auto* data = static_cast<double*>(::operator new(size_t(groups) * sizeof(double) * kChildren, kLine));
      std::fill(data, data + groups * kChildren, 0.0);
      return data;
    }

    static constexpr std::align_val_t kLine{64};
    int64_t groups;
    double *values, *sums;
  };

  static double sum_up(const double* values) {
    double sum = 0;
    for (int k = 0; k < kChildren; ++k) sum += values[k];
    return sum;
  }
  static double sum_up(const double* values, double* __restrict sums) {
    double sum = 0;
    for (int k = 0; k < kChildren; ++k) sums[k] = sum += values[k];
    return sum;
  }

  // `mass` is the sampled point in the cumulative priorities of the children. Returns the first child whose prefix sum
  // is greater than the mass, and reduces the mass by the sum of the children before it. The child exists, because the
  // mass is clamped below the last prefix sum, which is the parent. Its priority is positive, because only a positive
  // child increases the prefix sum.
  static int64_t descend(const double* sums, double& mass) {
    static_assert(kChildren == 8);
    mass = std::min(mass, next_below(sums[7]));  // rounding may have left more mass than the parent has
    // Arithmetic instead of branches, which would be unpredictable.
    int64_t chosen = 4 * int64_t(mass >= sums[3]);
    chosen += 2 * int64_t(mass >= sums[chosen + 1]);
    chosen += mass >= sums[chosen];
    const int64_t later = chosen > 0;
    mass -= double(later) * sums[chosen - later];
    return chosen;
  }

  // The largest double below x > 0, without the function call of std::nextafter.
  static double next_below(double x) {
    int64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    --bits;
    std::memcpy(&x, &bits, sizeof bits);
    return x;
  }

  // Sums the children anew: with increments, rounding errors would accumulate.
  void recompute(size_t level, int64_t node) {
    const Level& here = levels_[level];
    const double* values = here.values + node * kChildren;
    const double sum = here.sums ? sum_up(values, here.sums + node * kChildren) : sum_up(values);
    (level + 1 < levels_.size() ? levels_[level + 1].values[node] : total_) = sum;
  }

  static int64_t checked(int64_t capacity) {
    if (capacity < 1 || capacity > kMaxLeaves) {
      throw std::invalid_argument("SumTree: capacity: expected 1 to 2**40, got " + std::to_string(capacity));
    }
    return capacity;
  }

  // The sum of `capacity` such priorities does not overflow, rounding included.
  static double largest_priority(int64_t capacity) { return std::numeric_limits<double>::max() / 2 / double(capacity); }

  void check_index(int64_t index, int64_t i) const {
    if (index < 0 || index >= capacity_) {
      throw std::out_of_range("SumTree: indices: expected 0 to " + std::to_string(capacity_ - 1) + ", got " +
                              std::to_string(index) + at(i));
    }
  }
  void check_priority(double priority, int64_t i) const {
    if (!(priority >= 0 && priority <= limit_)) {
      throw std::invalid_argument("SumTree: priorities: expected numbers in [0, " + format(limit_) + "], got " +
                                  format(priority) + at(i));
    }
  }

  static std::string format(double x) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%g", x);
    return buffer;
  }
  static std::string at(int64_t i) { return " at position " + std::to_string(i); }

  int64_t capacity_;
  double limit_, total_ = 0;
  std::vector<Level> levels_;  // from the leaves to the root
  std::vector<int64_t> changed_;
};

}  // namespace automl_ext
