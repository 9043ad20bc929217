// What all_kernels_tested.cmake must find: 5 kernels in two files; // __global__ void not_this_one() is no kernel.
__global__ void plain(int* x) { x[0] = 1; }

template <class T, class C>
__global__ void __launch_bounds__(kThreads) forward(const T* x, C* out) {
  int a[2];
}

template <class T, int kWidth = (1 + 2)>
__global__ void __launch_bounds__(most_threads(kWidth), 2)
backward(T* x) {}
