// The replay buffer's parts: an op that gathers windows, and functions for ctypes (automl_ext/rl/replay/_compiled.py), which
// checks the arrays that it passes. Indices are checked here, so that memory is never accessed out of bounds.
#include <new>
#include <string>
#include <vector>

#include "../common/kernel_library.h"
#include "gather.h"
#include "sum_tree.h"
#include "windows.h"

namespace automl_ext::replay_cpu {
namespace {

constexpr const char* kGather = "gather_windows";

void check_array(const Tensor& x, ScalarType dtype, const char* name) {
  CHECK_VALUE(x.dim() == 1 && x.scalar_type() == dtype && x.device().is_cpu() && x.is_contiguous(), kGather, ": ", name,
              ": expected a contiguous 1-dimensional ", dtype, " tensor, got ", x.scalar_type(), " of shape ",
              x.sizes());
}

// The rows of a contiguous CPU tensor with `count` rows (-1: any number).
StoredRows rows_of(const Tensor& x, int64_t count, const char* name) {
  CHECK_VALUE(x.device().is_cpu() && x.is_contiguous() && x.dim() >= 1 && (count < 0 || x.size(0) == count), kGather,
              ": ", name, ": expected a contiguous CPU tensor with one row per step");
  const int64_t size = x.size(0) ? x.numel() / x.size(0) * x.element_size() : 0;
  return {static_cast<const char*>(x.const_data_ptr()), size};
}

Tensor empty_rows(const Tensor& like, int64_t n) {
  std::vector<int64_t> shape = like.sizes().vec();
  shape[0] = n;
  return empty(shape, like);
}

// Returns observations, actions, returns, next observations, discounts, terminated, indices: the fields of a Batch without its
// weights, for n-step windows that start at `rows`. apart: final observations of episodes, which are stored separately.
using Batch = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
Batch gather_windows(const Tensor& rows, const Tensor& steps, int64_t slots, int64_t n_step, double gamma,
                     const Tensor& observations, const Tensor& actions, const Tensor& apart) {
  check_array(rows, ScalarType::Long, "rows");
  check_array(steps, ScalarType::Byte, "steps");
  const int64_t n = rows.numel(), bytes = steps.numel(), count = bytes / int64_t(sizeof(Step));
  const auto* const stored = steps.const_data_ptr<Step>();
  CHECK_VALUE(bytes && bytes % int64_t(sizeof(Step)) == 0 && reinterpret_cast<uintptr_t>(stored) % alignof(Step) == 0,
              kGather, ": steps: expected the bytes of whole steps, aligned to 8");
  CHECK_VALUE(slots >= 1 && count % slots == 0, kGather, ": slots: expected a positive divisor of the number of steps");
  CHECK_VALUE(n_step >= 1, kGather, ": n_step: expected at least 1");
  const auto* const starts = rows.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < n; ++i)
    CHECK_INDEX(starts[i] >= 0 && starts[i] < count, kGather, ": rows: expected 0 to ", count - 1, ", got ", starts[i]);
  const Rings rings = {stored, count, slots};
  const StoredRows all_observations = rows_of(observations, count, "observations");
  const StoredRows all_actions = rows_of(actions, count, "actions");
  const StoredRows finals = rows_of(apart, -1, "apart");
  CHECK_VALUE(!apart.size(0) || finals.size == all_observations.size, kGather,
              ": apart: expected rows of the same size as those of observations");

  const Tensor returns = empty({n}, ScalarType::Float, rows), discounts = empty({n}, ScalarType::Float, rows);
  const Tensor terminated = empty({n}, ScalarType::Bool, rows), indices = empty({n}, ScalarType::Long, rows);
  const Tensor first = empty_rows(observations, n), next = empty_rows(observations, n), acts = empty_rows(actions, n);
  std::vector<Next> places(n);
  prefetch_windows(rings, starts, n, n_step, all_observations, all_actions);
  n_step_windows(rings, starts, n, n_step, gamma,
                 {returns.mutable_data_ptr<float>(), discounts.mutable_data_ptr<float>(),
                  terminated.mutable_data_ptr<bool>(), indices.mutable_data_ptr<int64_t>(), places.data()});
  for (const Next& place : places)
    CHECK_INDEX(place.final < apart.size(0), kGather, ": apart: fewer rows than the steps refer to");
  copy_rows(all_observations, starts, n, first.mutable_data_ptr());
  copy_next(all_observations, finals, places.data(), n, next.mutable_data_ptr());
  copy_rows(all_actions, starts, n, acts.mutable_data_ptr());
  return {first, acts, returns, next, discounts, terminated, indices};
}

// Runs body; returns null, or the first letter of the type of its error (ValueError, IndexError, MemoryError) and the text.
template <class Body>
const char* guarded(const Body& body) {
  static thread_local std::string error;
  try {
    body();
    return nullptr;
  } catch (const std::bad_alloc&) {
    error = "MSumTree: out of memory";
  } catch (const std::out_of_range& e) {
    error = std::string("I") + e.what();
  } catch (const std::exception& e) {
    error = std::string("V") + e.what();
  }
  return error.c_str();
}

}  // namespace
}  // namespace automl_ext::replay_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // Of the replay buffer: csrc/replay/replay_cpu.cpp.
  m.def(
      "_gather_windows(Tensor rows, Tensor steps, int slots, int n_step, float gamma, Tensor observations, "
      "Tensor actions, Tensor apart) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::replay_cpu;
  implement<gather_windows>(m, "_gather_windows", false);
}

using automl_ext::SumTree;

EXPORTED const char* automl_ext_sum_tree_new(int64_t capacity, SumTree** tree) {
  return automl_ext::replay_cpu::guarded([&] { *tree = new SumTree(capacity); });
}
EXPORTED void automl_ext_sum_tree_delete(SumTree* tree) { delete tree; }
EXPORTED double automl_ext_sum_tree_total(const SumTree* tree) { return tree->total(); }
EXPORTED double automl_ext_sum_tree_limit(const SumTree* tree) { return tree->limit(); }
EXPORTED const char* automl_ext_sum_tree_set(SumTree* tree, const int64_t* indices, const double* priorities,
                                             int64_t n) {
  return automl_ext::replay_cpu::guarded([&] { tree->set(indices, priorities, n); });
}
EXPORTED const char* automl_ext_sum_tree_get(const SumTree* tree, const int64_t* indices, int64_t n,
                                             double* priorities) {
  return automl_ext::replay_cpu::guarded([&] { tree->get(indices, n, priorities); });
}
EXPORTED const char* automl_ext_sum_tree_sample(const SumTree* tree, const double* uniforms, int64_t n,
                                                int64_t* indices, double* priorities) {
  return automl_ext::replay_cpu::guarded([&] { tree->sample(uniforms, n, indices, priorities); });
}
// priorities: [capacity].
EXPORTED void automl_ext_sum_tree_state(const SumTree* tree, double* priorities) {
  std::copy(tree->state(), tree->state() + tree->capacity(), priorities);
}
EXPORTED const char* automl_ext_sum_tree_load(SumTree* tree, const double* priorities) {
  return automl_ext::replay_cpu::guarded([&] { tree->load(priorities); });
}
// steps: `count` Steps.
EXPORTED void automl_ext_held_rows(const int64_t* indices, int64_t n, const void* steps, int64_t count, int64_t* rows) {
  automl_ext::held_rows({static_cast<const automl_ext::Step*>(steps), count, 1}, indices, n, rows);
}
