// Host code: which plan, how the work is cut into blocks, how buffers are laid out.
#pragma once

#include "kernel.cuh"
#include "precise.cuh"

namespace dnasm {

inline size_t round_up(size_t n, size_t unit = 256) { return (n + unit - 1) / unit * unit; }

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
  work.groups = static_cast<int>((p.batch + P::kSequences - 1) / P::kSequences);
  const int64_t wanted = (blocks_wanted + p.channels - 1) / p.channels;
  work.chunks = static_cast<int>(wanted < work.groups ? wanted : work.groups);
  return work;
}
template <class P>
Work forward_work(const Params& p) {
  Work work = make_work<P>(p, P::kParkedInScratch ? 528 : 4096);
  if (P::kForwardStays) {  // as many as an H200 runs at once, where each has several groups to itself
    const int64_t groups = p.channels * work.groups;
    work.chunks = static_cast<int>(groups < 2 * 528 ? groups : 528);
  }
  work.parked = static_cast<char*>(p.scratch);
  return work;
}
template <class P>
size_t forward_bytes(const Params& p) {
  return P::kParkedInScratch ? static_cast<size_t>(p.channels * forward_work<P>(p).chunks) * P::kParkedBytes : 0;
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
  size_t skip_at, saved_at, parked_at, bytes;
  explicit BackwardScratch(const Params& p) {
    const Work work = backward_work<P>(p);
    partials = static_cast<int64_t>(work.chunks) * P::kTeams;
    skip_partials = static_cast<int64_t>(work.chunks) * P::kWarps;
    skip_at = static_cast<size_t>(p.channels * partials) * 8 * P::kLength;
    saved_at = round_up(skip_at + static_cast<size_t>(p.channels * skip_partials) * 4);
    const auto blocks = static_cast<size_t>(p.channels * work.chunks);
    parked_at = saved_at + (Backward<P>::kScratchSaved ? blocks * 4 * P::kLength : 0);
    bytes = parked_at + (P::kParkedInScratch ? blocks * P::kParkedBytes : 0);
  }
};

// Whether every row is made of aligned pairs, or of more.
inline bool aligned_rows(const Params& p, int64_t elements) {
  const int64_t element = p.dtype == kFloat32 ? 4 : 2, pair = elements * element;
  if (p.starts) return false;  // sequences that begin anywhere
  for (const Rows* r : {&p.u, &p.in_gate, &p.out_gate, &p.y, &p.dy, &p.du, &p.din_gate, &p.dout_gate}) {
    const int64_t bits = static_cast<int64_t>(reinterpret_cast<uintptr_t>(r->data)) | r->stride_b * element |
                         r->stride_d * element;
    if (r->data && bits % pair) return false;
  }
  return true;
}
// Whether every row is as long as the plan and aligned, and no block meets fewer than it can hold.
template <class P>
bool full_rows(const Params& p) {
  return p.length == P::kLength && p.batch % P::kSequences == 0 && aligned_rows(p, 2);
}

template <class P>
size_t plan_spectrum_bytes(const Params& p) {
  const SpectrumLayout layout = spectrum_layout<P>(p);
  return static_cast<size_t>(layout.table_bytes + layout.exponent_bytes + p.channels * layout.channel_bytes);
}

template <class P>
const char* launch_spectrum(const Params& p) {
  using W = PlanWide<P>;
  const LaunchShape shape{p.channels * W::kSplits + table_blocks<P>(), W::kThreads, W::kSharedBytes, p.stream};
  return launch(spectrum_kernel<P>, shape, p, spectrum_layout<P>(p));
}

template <class P, int kDtype, bool kFull, bool kGated>
const char* launch_forward(const Params& p) {
  const Work work = forward_work<P>(p);
  const LaunchShape shape{P::kForwardStays ? work.chunks : p.channels * work.chunks, P::kThreads, P::kSharedBytes, p.stream};
  return launch(forward_kernel<P, kDtype, kFull, kGated>, shape, p, work);
}

template <class P, int kDtype, bool kFull, bool kGated>
const char* launch_backward(const Params& p) {
  using W = GradientWide<P>;
  const BackwardScratch<P> scratch(p);
  Work work = backward_work<P>(p);
  work.saved = reinterpret_cast<Quad*>(static_cast<char*>(p.scratch) + scratch.saved_at);
  work.parked = static_cast<char*>(p.scratch) + scratch.parked_at;
  const LaunchShape shape{p.channels * work.chunks, P::kThreads, Backward<P>::kSharedBytes, p.stream};
  if (const char* text = launch(backward_kernel<P, kDtype, kFull, kGated>, shape, p, work)) return text;
  if (!p.dk && !p.dskip) return nullptr;
  const float* sums = static_cast<const float*>(p.scratch);
  const PartialSums partial{sums, sums + scratch.skip_at / 4, static_cast<int>(scratch.partials),
                            static_cast<int>(scratch.skip_partials)};
  const LaunchShape last{p.channels, W::kThreads, W::kSharedBytes, p.stream};
  return launch(filter_gradient_kernel<P>, last, p, partial);
}

// The float32 route in one block.
template <int kN>
struct Precise {
  using W = Wide<kN>;
  // Blocks keep spectra of their own: no more of them than fill a device.
  static PreciseWork make_work(const Params& p) {
    PreciseWork work{};
    const int64_t wanted = (528 + p.channels - 1) / p.channels;
    work.chunks = static_cast<int>(wanted < p.batch ? wanted : p.batch);
    return work;
  }
  static size_t spectrum_bytes(const Params& p) { return static_cast<size_t>(p.channels) * kN * 8; }
  static size_t forward_bytes(const Params&) { return 0; }
  static size_t backward_bytes(const Params& p) {
    return static_cast<size_t>(p.channels * make_work(p).chunks) * (16 * kN + 4);
  }
  static LaunchShape shape(const Params& p, int64_t blocks) { return {blocks, W::kThreads, W::kSharedBytes, p.stream}; }

  static const char* spectrum(const Params& p) { return launch(precise_spectrum_kernel<kN>, shape(p, p.channels), p); }
  template <int kDtype>
  static const char* forward(const Params& p) {
    const PreciseWork work = make_work(p);
    return launch(precise_forward_kernel<kN, kDtype>, shape(p, p.channels * work.chunks), p, work);
  }
  template <int kDtype>
  static const char* backward(const Params& p) {
    PreciseWork work = make_work(p);
    const int64_t blocks = p.channels * work.chunks;
    work.saved = static_cast<Complex*>(p.scratch);
    work.sums = work.saved + blocks * kN;
    work.skip_sums = reinterpret_cast<float*>(work.sums + blocks * kN);
    if (const char* text = launch(precise_backward_kernel<kN, kDtype>, shape(p, blocks), p, work)) return text;
    if (!p.dk && !p.dskip) return nullptr;
    const PartialSums sums{&work.sums->re, work.skip_sums, work.chunks, work.chunks};
    return launch(precise_gradient_kernel<kN>, shape(p, p.channels), p, sums);
  }
};

}  // namespace dnasm
