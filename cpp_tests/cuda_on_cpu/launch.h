// Kernel launches: checks of the limits of a device, random order of blocks, record of the launched kernels.
#pragma once
#include <unistd.h>

#include <fstream>
#include <map>
#include <set>
#include <tuple>

#include "shared.h"

namespace cuda_on_cpu {

constexpr size_t kMaxParameterBytes = 4096, kDefaultSharedBytes = 48 * 1024;

// Dynamic shared memory that cudaFuncSetAttribute allowed, per kernel.
inline std::map<const void*, size_t>& allowed_shared_bytes() {
  static std::map<const void*, size_t> allowed;
  return allowed;
}

// The identifier in "(automl_ext::rows<float, 4>)".
inline std::string kernel_name(std::string text) {
  text = text.substr(text.find_first_not_of("( "));
  text = text.substr(0, text.find_first_of("<) "));
  const size_t scope = text.rfind(':');
  return scope == std::string::npos ? text : text.substr(scope + 1);
}

// Names of the launched kernels. If AUTOML_EXT_LAUNCHED names a folder, they are written there at exit, one file per
// process.
struct Launched {
  std::set<std::string> names;

  ~Launched() {
    const char* folder = std::getenv("AUTOML_EXT_LAUNCHED");
    if (!folder || names.empty()) return;
    std::ofstream file(std::string(folder) + "/" + std::to_string(getpid()) + ".txt");
    for (const std::string& kernel : names) file << kernel << "\n";
  }
};
inline Launched launched;

// The total size of the parameters with their alignment.
template <class... P>
constexpr size_t parameter_bytes() {
  size_t bytes = 0;
  ((bytes = (bytes + alignof(P) - 1) / alignof(P) * alignof(P) + sizeof(P)), ...);
  return bytes;
}

inline void check(Launch& launch, const void* kernel, size_t parameters) {
  const auto reject = [&](const std::string& what) { throw Fault(launch.kernel + ": launch with " + what); };
  const auto size = [](dim3 d) {
    return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
  };
  const dim3 g = launch.grid, b = launch.block;
  if (block) reject("another kernel running");
  if (uint64_t(b.x) * b.y * b.z == 0 || b.x > kMaxThreads || b.y > kMaxThreads || b.z > 64 ||
      b.x * b.y * b.z > kMaxThreads)
    reject("a block of " + size(b) + " threads");
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > INT32_MAX || g.y > UINT16_MAX || g.z > UINT16_MAX)
    reject("a grid of " + size(g) + " blocks");
  const auto found = allowed_shared_bytes().find(kernel);
  const bool raised = found != allowed_shared_bytes().end();
  const size_t allowed = raised ? found->second : kDefaultSharedBytes;
  launch.most_shared_bytes = raised ? max_shared_bytes : kDefaultSharedBytes;
  if (launch.dynamic_shared_bytes > std::min(allowed, max_shared_bytes))
    reject(std::to_string(launch.dynamic_shared_bytes) + " bytes of dynamic shared memory, where " +
           std::to_string(std::min(allowed, max_shared_bytes)) + " are allowed");
  if (parameters > kMaxParameterBytes) reject(std::to_string(parameters) + " bytes of parameters");
}

template <class... P, class... A>
void launch(const char* text, void (*kernel)(P...), dim3 grid, dim3 block_size, size_t shared_bytes, void* /*stream*/,
            A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "one argument for each parameter of the kernel");
  static_assert(!(std::is_reference_v<P> || ...), "a kernel takes its parameters by value");
  Quiet quiet;
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  } const call{kernel, {static_cast<P>(std::forward<A>(arguments))...}};
  const auto run = [](const void* p) {
    const Call& call = *static_cast<const Call*>(p);
    std::apply(call.kernel, call.arguments);
  };
  const bool newest_first = (seed + process_seed()) % 2 == 1;
  Launch launch{kernel_name(text),
                grid,
                block_size,
                shared_bytes,
                run,
                &call,
                newest_first,
                Random(seed + 1000 * process_seed())};
  check(launch, reinterpret_cast<const void*>(kernel), parameter_bytes<P...>());
  launched.names.insert(launch.kernel);

  host.tsan_fiber = current_tsan_fiber();
  std::vector<uint64_t> order(uint64_t(grid.x) * grid.y * grid.z);
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  launch.random.shuffle(order);
  for (const uint64_t i : order)
    run_block(launch, {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)});
  acquire(&launch);
}

}  // namespace cuda_on_cpu
