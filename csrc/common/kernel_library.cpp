// What the library of the kernels has besides the ops: the table of the CPU kernels, for calls without the dispatcher, and facts
// for automl_ext/_native.py.
#include "kernel_library.h"

#include <cstring>
#include <mutex>
#include <set>
#include <thread>

#include "../instruction_sets/choice.h"
#include "older_libstdcxx.h"

namespace automl_ext {

std::vector<DirectKernel>& direct_kernels() {
  static std::vector<DirectKernel> all;
  return all;
}

}  // namespace automl_ext

// The CPU kernel of an op (without namespace), null if there is none of this C++ signature.
EXPORTED void (*automl_ext_kernel(const char* name, const char* signature))() {
  for (const auto& kernel : automl_ext::direct_kernels())
    if (!std::strcmp(kernel.name, name) && !std::strcmp(kernel.signature, signature)) return kernel.function;
  return nullptr;
}

EXPORTED const char* automl_ext_instruction_set() { return automl_ext::instruction_set(); }
EXPORTED const char* automl_ext_instruction_sets() { return automl_ext::compiled_instruction_sets(); }

// The number of threads that parallel_for uses.
EXPORTED int64_t automl_ext_parallel_threads() {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  automl_ext::parallel_for(0, 1024, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  return int64_t(threads.size());
}
