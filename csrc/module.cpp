// The extension module. Importing it registers the ops with torch; it also has build information, short calls of some ops, and the replay.
#include <ATen/Parallel.h>
#include <pybind11/pybind11.h>

#include <mutex>
#include <set>
#include <thread>

#include "instruction_sets/kernels.h"
#include "mlp/mlp_module.h"
#include "policy/policy_module.h"
#include "replay/replay_module.h"

namespace {

// The number of threads that at::parallel_for uses. Without -fopenmp it is silently one.
size_t parallel_threads() {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, 1024, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  return threads.size();
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("instruction_set", [] { return automl_ext::kernels().instruction_set; });
  m.def("parallel_threads", &parallel_threads);
  m.def("compiled_instruction_sets", &automl_ext::compiled_instruction_sets);
  automl_ext::bind_mlp(m);
  automl_ext::bind_policy(m);
  automl_ext::bind_replay(m);
}
