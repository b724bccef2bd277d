// The kernels for a few taps of one dtype: compile with -DDNASM_DTYPE=<Dtype>.
#include "direct_gradient.cuh"
#include "shortconv.cuh"

namespace dnasm {
namespace {

constexpr int kChosen = DNASM_DTYPE;

// Rows that lie along time are read so; all others, and those of one channel after the other, along channels.
bool along_channels(const ShortParams& p) { return p.x.stride_l != 1 && p.x.stride_d == 1; }

template <int kStreams, bool kAlong, int kMostTaps>
const char* run(const ShortParams& p, bool forward) {
  return (forward ? launch_short_forward<kChosen, kStreams, kAlong, kMostTaps>
                  : launch_short_backward<kChosen, kStreams, kAlong, kMostTaps>)(p);
}
template <int kStreams, bool kAlong>
const char* run(const ShortParams& p, bool forward) {
  return (p.taps <= 3 ? run<kStreams, kAlong, 3> : run<kStreams, kAlong, 8>)(p, forward);
}
const char* run(const ShortParams& p, bool forward) {
  if (p.streams == 3) return (along_channels(p) ? run<3, true> : run<3, false>)(p, forward);
  return (along_channels(p) ? run<1, true> : run<1, false>)(p, forward);
}
const char* run_forward(const ShortParams& p) { return run(p, true); }
const char* run_backward(const ShortParams& p) { return run(p, false); }

ShortKernels kernels() {
  ShortKernels all{backward_scratch, run_forward, run_backward, nullptr, nullptr, nullptr};
  if constexpr (kChosen != kFloat32) {
    all.direct_scratch_bytes = direct_scratch;
    all.direct_forward = launch_direct_forward<kChosen>, all.direct_backward = launch_direct_backward<kChosen>;
  }
  return all;
}
[[maybe_unused]] const bool announced = (register_short(kChosen, kernels()), true);

}  // namespace
}  // namespace dnasm
