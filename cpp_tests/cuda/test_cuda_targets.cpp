// The CUDA kernels of the targets family, run on the CPU. One program for all tests, which share the compiled kernels.
#include "../cuda_on_cpu/cuda_on_cpu.h"

#include "../../csrc/targets/targets_cuda.cu"
#include "cuda_projection_part.h"
#include "cuda_td_part.h"

int main(int argc, char** argv) {
  return run_part(argc, argv, {{"projection", projection_part::test}, {"td", td_part::test}});
}
