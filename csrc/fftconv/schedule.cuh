// Host code: which plan, how the work is cut into blocks, how buffers are laid out.
#pragma once

#include "kernel.cuh"

namespace dnasm {

constexpr int64_t kLargestPlan = 32768, kSmallestPlan = 256;

inline size_t round_up(size_t n, size_t unit = 256) { return (n + unit - 1) / unit * unit; }

// f(std::integral_constant-like Plan<L>{}) for the plan of this length, or `otherwise`.
template <class Result, class F>
Result with_plan(int64_t length, Result otherwise, const F& f) {
  switch (length) {
    case 256: return f(Plan<256>());
    case 512: return f(Plan<512>());
    case 1024: return f(Plan<1024>());
    case 2048: return f(Plan<2048>());
    case 4096: return f(Plan<4096>());
    case 8192: return f(Plan<8192>());
    case 16384: return f(Plan<16384>());
    case 32768: return f(Plan<32768>());
    default: return otherwise;
  }
}

template <class P>
SpectrumLayout spectrum_layout(const Params& p) {
  SpectrumLayout layout;
  layout.table_bytes = P::Rows::kRows * 512;
  layout.exponent_bytes = static_cast<int64_t>(round_up(static_cast<size_t>(p.channels) * 4, 512));
  layout.channel_bytes = 4 * P::kLength;
  return layout;
}

// Blocks of a channel share its spectrum; more of them than the batch fills would idle. Fixed numbers, not the device's,
// since backward's sums depend on them.
template <class P>
Work make_work(const Params& p, int64_t blocks_wanted) {
  Work work{};
  work.layout = spectrum_layout<P>(p);
  work.groups = (p.batch + P::kSequences - 1) / P::kSequences;
  const int64_t wanted = (blocks_wanted + p.channels - 1) / p.channels;
  work.chunks = static_cast<int>(wanted < work.groups ? wanted : work.groups);
  return work;
}
template <class P>
Work forward_work(const Params& p) {
  return make_work<P>(p, 4096);
}
template <class P>
Work backward_work(const Params& p) {
  Work work = make_work<P>(p, 1056);
  work.partial = static_cast<float*>(p.scratch);
  return work;
}

// Backward's scratch: partial spectra of dk, partial sums of dskip, then a saved spectrum for each block of a long plan.
template <class P>
struct BackwardScratch {
  int64_t partials, skip_partials;
  size_t skip_at, saved_at, bytes;
  explicit BackwardScratch(const Params& p) {
    const Work work = backward_work<P>(p);
    partials = static_cast<int64_t>(work.chunks) * P::kSequences;
    skip_partials = static_cast<int64_t>(work.chunks) * P::kWarps;
    skip_at = static_cast<size_t>(p.channels * partials) * 8 * P::kLength;
    saved_at = round_up(skip_at + static_cast<size_t>(p.channels * skip_partials) * 4);
    const bool saves = !FilterGradient<P>::kKept;
    bytes = saved_at + (saves ? static_cast<size_t>(p.channels * work.chunks) * 4 * P::kLength : 0);
  }
};

// Whether every row is as long as the plan and made of aligned pairs.
inline bool full_rows(const Params& p, int64_t plan) {
  const int64_t element = p.dtype == kFloat32 ? 4 : 2, pair = 2 * element;
  if (p.length != plan) return false;
  for (const Rows* r : {&p.u, &p.in_gate, &p.out_gate, &p.y, &p.dy, &p.du, &p.din_gate, &p.dout_gate}) {
    const int64_t bits = static_cast<int64_t>(reinterpret_cast<uintptr_t>(r->data)) | r->stride_b * element |
                         r->stride_d * element;
    if (r->data && bits % pair) return false;
  }
  return true;
}

template <class P, int kDtype, bool kFull, bool kGated>
const char* launch_forward(const Params& p) {
  const Work work = forward_work<P>(p);
  const LaunchShape shape{p.channels * work.chunks, P::kThreads, P::kSharedBytes, p.stream};
  return launch(forward_kernel<P, kDtype, kFull, kGated>, shape, p, work);
}

template <class P, int kDtype, bool kFull, bool kGated>
const char* launch_backward(const Params& p) {
  Work work = backward_work<P>(p);
  work.saved = reinterpret_cast<Quad*>(static_cast<char*>(p.scratch) + BackwardScratch<P>(p).saved_at);
  const LaunchShape shape{p.channels * work.chunks, P::kThreads, P::kSharedBytes, p.stream};
  return launch(backward_kernel<P, kDtype, kFull, kGated>, shape, p, work);
}

}  // namespace dnasm
