// Replaces torch's function for `make sanitized-threads`: the thread sanitizer does not know the threads of OpenMP, and
// would report their results as races. Eight threads, whatever torch.set_num_threads says.
#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

extern "C" int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t grain, void (*run)(int64_t, int64_t, void*),
                                      void* context) {
  constexpr int64_t kThreads = 8;
  const int64_t part = std::max({grain, (end - begin + kThreads - 1) / kThreads, int64_t(1)});
  std::vector<std::thread> threads;
  for (int64_t first = begin; first < end; first += part)
    threads.emplace_back(run, first, std::min(first + part, end), context);
  for (std::thread& thread : threads) thread.join();
  return 0;
}
