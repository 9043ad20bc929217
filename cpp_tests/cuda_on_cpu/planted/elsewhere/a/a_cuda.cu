__global__ void plain(int* x) {}
