// The float32 route: the same transform in float32 arithmetic, for likelihoods and scores; any dtype at the interface.
//
// A block takes whole sequences of one channel. The spectrum is [channel][bin as it stands], divided by L.
#pragma once

#include "wide.cuh"

namespace dnasm {

template <int kDtype>
DNASM_DEVICE float load_element(const Rows& rows, const Segment& s, int64_t d, int n) {
  return load_number(rows.data, kDtype, s.row * rows.stride_b + d * rows.stride_d + s.start + n);
}
template <int kDtype>
DNASM_DEVICE void store_element(const Rows& rows, const Segment& s, int64_t d, int n, float x) {
  using E = Element<kDtype>;
  auto* at = static_cast<typename E::Scalar*>(rows.data) + s.row * rows.stride_b + d * rows.stride_d + s.start;
  at[n] = E::pick(E::pack(x, x), 0);
}

// What a launch adds to its Params, and backward's scratch: [block] spectra of kN, [channel][chunk] sums of as many, then
// dskip's sums.
struct PreciseWork {
  int chunks;
  Complex *saved, *sums;
  float* skip_sums;
};

template <class W, int kDtype>
struct PreciseRow {
  const Params& p;
  int channel;
  Segment at;

  DNASM_DEVICE float number(const Rows& rows, int n) const { return load_element<kDtype>(rows, at, channel, n); }
  DNASM_DEVICE float product(const Rows& rows, const Rows& gate, int n) const {
    if (n >= at.length) return 0;
    return gate.data ? number(rows, n) * number(gate, n) : number(rows, n);
  }
  // Multiply by the filter's spectrum, or its conjugate, go back, and hand the finished sums to finish(n, sum).
  template <bool kConjugate, class Finish>
  DNASM_DEVICE void back(const W& wide, const Finish& finish) const {
    const Complex* k = static_cast<const Complex*>(p.spectrum) + static_cast<int64_t>(channel) * W::kN;
    for (int i = thread_index(); i < W::kN; i += W::kThreads)
      wide.at(i) = wide.at(i) * (kConjugate ? conjugate(k[i]) : k[i]);
    sync_block();
    wide.inverse(0, [&](int n, Complex z) {
      if (n < at.length) finish(n, z.re);
    });
  }
};

template <int kN>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_spectrum_kernel(const Params p) {
  using W = Wide<kN>;
  const W wide(1);
  const FilterTaps taps(p, block_index(), kN);
  wide.forward(0, [&](int n) { return load_tap(p, taps, n, 1.0f); });
  Complex* out = static_cast<Complex*>(p.spectrum) + static_cast<int64_t>(block_index()) * kN;
  for (int i = thread_index(); i < kN; i += W::kThreads) out[i] = wide.at(i) * Complex{1.0f / kN, 0};
}

template <int kN, int kDtype>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_forward_kernel(const Params p, const PreciseWork work) {
  using W = Wide<kN>;
  const W wide(1);
  const int channel = block_index() / work.chunks;
  const float skip = p.skip ? p.skip[channel] : 0.0f;
  for (int64_t b = block_index() % work.chunks; b < p.batch; b += work.chunks) {
    const PreciseRow<W, kDtype> row{p, channel, segment_of(p, b)};
    wide.forward(0, [&](int n) { return Complex{row.product(p.u, p.in_gate, n), 0}; });
    row.template back<false>(wide, [&](int n, float sum) {
      const float y = sum + skip * row.product(p.u, p.in_gate, n);
      store_element<kDtype>(p.y, row.at, channel, n, p.out_gate.data ? y * row.number(p.out_gate, n) : y);
    });
  }
}

template <int kN, int kDtype>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_backward_kernel(const Params p, const PreciseWork work) {
  using W = Wide<kN>;
  const W wide(1);
  const int channel = block_index() / work.chunks;
  const int64_t block = block_index();
  const float skip = p.skip ? p.skip[channel] : 0.0f;
  Complex *saved = work.saved + block * kN, *sums = work.sums + block * kN;
  float skip_sum = 0;
  bool first = true;
  for (int64_t b = block_index() % work.chunks; b < p.batch; b += work.chunks) {
    const PreciseRow<W, kDtype> row{p, channel, segment_of(p, b)};
    wide.forward(0, [&](int n) { return Complex{row.product(p.u, p.in_gate, n), 0}; });
    for (int i = thread_index(); i < kN; i += W::kThreads) saved[i] = wide.at(i);
    sync_block();
    if (p.dout_gate.data)
      row.template back<false>(wide, [&](int n, float sum) {
        const float y = sum + skip * row.product(p.u, p.in_gate, n);
        store_element<kDtype>(p.dout_gate, row.at, channel, n, y * row.number(p.dy, n));
      });

    wide.forward(0, [&](int n) { return Complex{row.product(p.dy, p.out_gate, n), 0}; });
    for (int i = thread_index(); i < kN; i += W::kThreads) {
      const Complex term = wide.at(i) * conjugate(saved[i]);
      sums[i] = first ? term : sums[i] + term;
    }
    row.template back<true>(wide, [&](int n, float sum) {
      const float g = row.product(p.dy, p.out_gate, n), u = row.number(p.u, n), dx = sum + skip * g;
      const float gate = p.in_gate.data ? row.number(p.in_gate, n) : 1.0f;
      skip_sum += g * u * gate;
      if (p.din_gate.data) store_element<kDtype>(p.din_gate, row.at, channel, n, dx * u);
      if (p.du.data) store_element<kDtype>(p.du, row.at, channel, n, dx * gate);
    });
    first = false;
  }
  skip_sum = block_sum<W::kThreads>(skip_sum, wide.scratch);
  if (thread_index() == 0) work.skip_sums[block] = skip_sum;
}

template <int kN>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_gradient_kernel(const Params p, const PartialSums sums) {
  using W = Wide<kN>;
  const W wide(1);
  const Complex* spectra =
      reinterpret_cast<const Complex*>(sums.spectra) + static_cast<int64_t>(block_index()) * sums.partials * kN;
  filter_gradient(wide, p, sums, [&](int) {
    for (int i = thread_index(); i < kN; i += W::kThreads) {
      Complex sum{0, 0};
      for (int k = 0; k < sums.partials; ++k) sum = sum + spectra[static_cast<int64_t>(k) * kN + i];
      wide.at(i) = sum * Complex{1.0f / kN, 0};
    }
  });
}

}  // namespace dnasm
