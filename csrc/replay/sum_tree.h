// Leaves with priorities; a parent is the sum of its eight children, one cache line. Host, float64, no torch.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace automl_ext {

class SumTree {
 public:
  static constexpr int kChildren = 8;
  static constexpr int64_t kMostLeaves = int64_t(1) << 40;

  explicit SumTree(int64_t capacity) : capacity_(checked(capacity)), limit_(largest_priority(capacity)) {
    int64_t size = capacity;
    do {
      size = (size + kChildren - 1) / kChildren;  // groups of children, that is parents
      levels_.emplace_back(size);
    } while (size > 1);
  }

  int64_t capacity() const { return capacity_; }
  double limit() const { return limit_; }
  double total() const { return total_; }

  // A repeated index ends with its last priority. All is checked before anything is written.
  void set(const int64_t* indices, const double* priorities, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      check_index(indices[i], i);
      check_priority(priorities[i], i);
      __builtin_prefetch(levels_[0].data + indices[i], 1);
    }
    // Parents that changed, level by level. Neighbours share parents: what repeats in a row is summed once.
    std::vector<int64_t>& nodes = changed_;
    nodes.resize(n);
    for (int64_t i = 0; i < n; ++i) {
      levels_[0].data[indices[i]] = priorities[i];
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
    for (int64_t i = 0; i < n; ++i) priorities[i] = levels_[0].data[indices[i]];
  }

  // Stratified: draw i lies in the i-th of n equal parts of the total, at the fraction uniforms[i] of it.
  void sample(const double* uniforms, int64_t n, int64_t* indices, double* priorities) const {
    if (!(total_ > 0)) throw std::invalid_argument("SumTree: every priority is 0, there is nothing to sample");
    for (int64_t i = 0; i < n; ++i) {
      if (!(uniforms[i] >= 0 && uniforms[i] < 1)) {
        throw std::invalid_argument("SumTree: uniforms: expected numbers in [0, 1), got " + text(uniforms[i]) +
                                    at(i));
      }
    }
    std::vector<double> masses(n);
    for (int64_t i = 0; i < n; ++i) {
      masses[i] = std::min((double(i) + uniforms[i]) / double(n) * total_, below(total_));
      indices[i] = 0;
    }
    // All draws go down together, so that their cache misses overlap.
    for (size_t level = levels_.size(); level-- > 0;) {
      const double* values = levels_[level].data;
      const double* next = level ? levels_[level - 1].data : nullptr;
      for (int64_t i = 0; i < n; ++i) {
        indices[i] = descend(values + indices[i] * kChildren, masses[i]) + indices[i] * kChildren;
        if (next) __builtin_prefetch(next + indices[i] * kChildren);
      }
    }
    for (int64_t i = 0; i < n; ++i) priorities[i] = levels_[0].data[indices[i]];
  }

  const double* state() const { return levels_[0].data; }  // [capacity]; the parents follow from it

  void load(const double* priorities) {
    for (int64_t i = 0; i < capacity_; ++i) check_priority(priorities[i], i);
    std::copy(priorities, priorities + capacity_, levels_[0].data);
    for (size_t level = 0; level < levels_.size(); ++level) {
      for (int64_t node = 0; node < levels_[level].groups; ++node) recompute(level, node);
    }
  }

 private:
  // `groups` times eight zeros, each group in a cache line of its own.
  struct Level {
    explicit Level(int64_t groups) : groups(groups) {
      data = static_cast<double*>(::operator new(size_t(groups) * sizeof(double) * kChildren, kLine));
      std::fill(data, data + groups * kChildren, 0.0);
    }
    Level(Level&& other) noexcept : groups(other.groups), data(other.data) { other.data = nullptr; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    ~Level() { ::operator delete(data, kLine); }

    static constexpr std::align_val_t kLine{64};
    int64_t groups;
    double* data;
  };

  // The first child whose running sum is above the mass; the mass becomes what is left for that child. A mass below
  // the parent finds one, because the parent is the last of these very sums, and only a child above 0 moves the sum.
  static int64_t descend(const double* children, double& mass) {
    double sum = 0, before = 0;
    int64_t chosen = 0;
    for (int k = 0; k < kChildren; ++k) {
      sum += children[k];
      const bool passed = mass >= sum;
      chosen += passed;
      before = passed ? sum : before;
    }
    // The rounding of sum may leave more than the child has.
    mass = std::min(mass - before, below(children[chosen]));
    return chosen;
  }

  // The next smaller number of a positive one; std::nextafter is a call.
  static double below(double x) {
    int64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    --bits;
    std::memcpy(&x, &bits, sizeof bits);
    return x;
  }

  // From the children afresh: increments would let rounding errors gather.
  void recompute(size_t level, int64_t node) {
    const double* children = levels_[level].data + node * kChildren;
    double sum = 0;
    for (int k = 0; k < kChildren; ++k) sum += children[k];
    (level + 1 < levels_.size() ? levels_[level + 1].data[node] : total_) = sum;
  }

  static int64_t checked(int64_t capacity) {
    if (capacity < 1 || capacity > kMostLeaves) {
      throw std::invalid_argument("SumTree: capacity: expected 1 to 2**40, got " + std::to_string(capacity));
    }
    return capacity;
  }

  // Sums of these do not overflow, roundings included.
  static double largest_priority(int64_t capacity) {
    return std::numeric_limits<double>::max() / 2 / double(capacity);
  }

  void check_index(int64_t index, int64_t i) const {
    if (index < 0 || index >= capacity_) {
      throw std::out_of_range("SumTree: indices: expected 0 to " + std::to_string(capacity_ - 1) + ", got " +
                              std::to_string(index) + at(i));
    }
  }
  void check_priority(double priority, int64_t i) const {
    if (!(priority >= 0 && priority <= limit_)) {
      throw std::invalid_argument("SumTree: priorities: expected numbers in [0, " + text(limit_) + "], got " +
                                  text(priority) + at(i));
    }
  }

  static std::string text(double x) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%g", x);
    return buffer;
  }
  static std::string at(int64_t i) { return " at position " + std::to_string(i); }

  int64_t capacity_;
  double limit_, total_ = 0;
  std::vector<Level> levels_;  // the leaves first
  std::vector<int64_t> changed_;
};

}  // namespace automl_ext
