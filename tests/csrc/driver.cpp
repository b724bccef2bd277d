// One plan in one program, for sanitizers and planted faults: forward and backward on random rows, judged here.
//
//   driver LENGTH BATCH CHANNELS SEED...   exits 1 where a result is wrong; sanitizers and the emulator have their own codes
#include <cstdlib>

#include "../../csrc/fftconv/launch.cu"
#include "../../csrc/fftconv/schedule.cuh"
#include "random_rows.h"

using namespace dnasm;

namespace {

// One variant of each kernel: compiling all of them takes most of a test's time.
constexpr bool kFullRows = DNASM_FULL;
using Chosen = Plan<DNASM_LENGTH>;
size_t backward_bytes(const Params& p) { return BackwardScratch<Chosen>(p).bytes; }
const Kernels kernels = {plan_spectrum_bytes<Chosen>, forward_bytes<Chosen>, backward_bytes, launch_spectrum<Chosen>,
                         launch_forward<Chosen, kBfloat16, kFullRows, true>,
                         launch_backward<Chosen, kBfloat16, kFullRows, true>};

bool run(int64_t n, int64_t b, int64_t d, uint64_t number) {
  seed(number);
  Convolution all(b, d, n, n);
  Params& p = all.p;
  const size_t bytes[3] = {spectrum_bytes(p), forward_scratch_bytes(p), backward_scratch_bytes(p)};
  void* buffers[3];
  for (int i = 0; i < 3; ++i) {
    if (posix_memalign(&buffers[i], 256, bytes[i] + 1)) return false;
    memset(buffers[i], 0xff, bytes[i] + 1);
  }
  p.spectrum = buffers[0];
  const char* text = filter_spectrum(p);
  p.scratch = buffers[1];
  if (!text) text = forward(p);
  p.scratch = buffers[2];
  if (!text) text = backward(p);
  for (void* buffer : buffers) free(buffer);
  if (text) fprintf(stderr, "%s\n", text);
  return !text && all.right();
}

}  // namespace

int main(int argc, char** argv) {
  register_kernels(DNASM_LENGTH, kBfloat16, kernels);
  bool fine = argc > 4;
  for (int i = 4; i < argc; ++i) fine = run(atoll(argv[1]), atoll(argv[2]), atoll(argv[3]), atoll(argv[i])) && fine;
  return fine ? 0 : 1;
}
