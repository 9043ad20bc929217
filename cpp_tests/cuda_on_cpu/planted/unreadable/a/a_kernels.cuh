__global__ void plain(int* x) {}
__global__ static auto odd(int* x) -> void {}
