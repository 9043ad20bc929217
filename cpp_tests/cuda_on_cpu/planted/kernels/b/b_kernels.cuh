template <class T>
__global__
void row_sums(T* x);

template <class T>
__device__ T helper(T x);

__launch_bounds__(256) __global__ void scale (float* x) {}
