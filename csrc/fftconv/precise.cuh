// The float32 route: the same transform in float32 arithmetic, for likelihoods and scores; any dtype at the interface.
//
// A block takes whole sequences of one channel, split by split; where there are several, what the splits add to a row
// meets in a float32 row of the block's own. The spectrum is [channel][split][bin as it stands], divided by L.
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

// What a launch adds to its Params, and a block's share of scratch: [block] rows of 2 L floats where there are splits;
// for backward [block] spectra of kN, then [channel][chunk] spectra of L, then dskip's sums.
struct PreciseWork {
  int splits, chunks;
  float* rows;
  Complex *saved, *sums;
  float* skip_sums;
};

template <class W, int kDtype>
struct PreciseRow {
  const Params& p;
  const PreciseWork& work;
  int channel;
  Segment at;

  DNASM_DEVICE float number(const Rows& rows, int n) const { return load_element<kDtype>(rows, at, channel, n); }
  DNASM_DEVICE float product(const Rows& rows, const Rows& gate, int n) const {
    if (n >= at.length) return 0;
    return gate.data ? number(rows, n) * number(gate, n) : number(rows, n);
  }
  DNASM_DEVICE const Complex* filter(int s) const {
    return static_cast<const Complex*>(p.spectrum) + (static_cast<int64_t>(channel) * work.splits + s) * W::kN;
  }
  // Multiply by the filter's spectrum, or its conjugate, go back, and hand the finished sums to finish(n, sum).
  template <bool kConjugate, class Finish>
  DNASM_DEVICE void back(const W& wide, int s, int which_row, const Finish& finish) const {
    const Complex* k = filter(s);
    for (int i = thread_index(); i < W::kN; i += W::kThreads)
      wide.at(i) = wide.at(i) * (kConjugate ? conjugate(k[i]) : k[i]);
    sync_block();
    float* row = work.rows + (static_cast<int64_t>(block_index()) * 2 + which_row) * W::kN * work.splits;
    wide.inverse(s, [&](int n, Complex z) {
      if (n >= at.length) return;
      const float sum = z.re + (s ? row[n] : 0.0f);
      if (s + 1 < work.splits) row[n] = sum;
      else finish(n, sum);
    });
  }
};

template <int kN>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_spectrum_kernel(const Params p, const int splits) {
  using W = Wide<kN>;
  const W wide(splits);
  const int channel = block_index() / splits, s = block_index() % splits;
  const FilterTaps taps(p, channel, kN * splits);
  wide.forward(s, [&](int n) { return load_tap(p, taps, n, 1.0f); });
  Complex* out = static_cast<Complex*>(p.spectrum) + static_cast<int64_t>(block_index()) * kN;
  const float scale = 1.0f / (static_cast<float>(kN) * static_cast<float>(splits));
  for (int i = thread_index(); i < kN; i += W::kThreads) out[i] = wide.at(i) * Complex{scale, 0};
}

template <int kN, int kDtype>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_forward_kernel(const Params p, const PreciseWork work) {
  using W = Wide<kN>;
  const W wide(work.splits);
  const int channel = block_index() / work.chunks;
  const float skip = p.skip ? p.skip[channel] : 0.0f;
  for (int64_t b = block_index() % work.chunks; b < p.batch; b += work.chunks) {
    const PreciseRow<W, kDtype> row{p, work, channel, segment_of(p, b)};
    for (int s = 0; s < work.splits; ++s) {
      wide.forward(s, [&](int n) { return Complex{row.product(p.u, p.in_gate, n), 0}; });
      row.template back<false>(wide, s, 0, [&](int n, float sum) {
        const float y = sum + skip * row.product(p.u, p.in_gate, n);
        store_element<kDtype>(p.y, row.at, channel, n, p.out_gate.data ? y * row.number(p.out_gate, n) : y);
      });
    }
  }
}

template <int kN, int kDtype>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_backward_kernel(const Params p, const PreciseWork work) {
  using W = Wide<kN>;
  const W wide(work.splits);
  const int channel = block_index() / work.chunks;
  const int64_t block = block_index();
  const float skip = p.skip ? p.skip[channel] : 0.0f;
  Complex* saved = work.saved + block * kN;
  float skip_sum = 0;
  bool first = true;
  for (int64_t b = block_index() % work.chunks; b < p.batch; b += work.chunks) {
    const PreciseRow<W, kDtype> row{p, work, channel, segment_of(p, b)};
    for (int s = 0; s < work.splits; ++s) {
      wide.forward(s, [&](int n) { return Complex{row.product(p.u, p.in_gate, n), 0}; });
      for (int i = thread_index(); i < kN; i += W::kThreads) saved[i] = wide.at(i);
      sync_block();
      if (p.dout_gate.data)
        row.template back<false>(wide, s, 0, [&](int n, float sum) {
          const float y = sum + skip * row.product(p.u, p.in_gate, n);
          store_element<kDtype>(p.dout_gate, row.at, channel, n, y * row.number(p.dy, n));
        });

      wide.forward(s, [&](int n) { return Complex{row.product(p.dy, p.out_gate, n), 0}; });
      Complex* sums = work.sums + (block * work.splits + s) * kN;
      for (int i = thread_index(); i < kN; i += W::kThreads) {
        const Complex term = wide.at(i) * conjugate(saved[i]);
        sums[i] = first ? term : sums[i] + term;
      }
      row.template back<true>(wide, s, 1, [&](int n, float sum) {
        const float g = row.product(p.dy, p.out_gate, n), u = row.number(p.u, n), dx = sum + skip * g;
        const float gate = p.in_gate.data ? row.number(p.in_gate, n) : 1.0f;
        skip_sum += g * u * gate;
        if (p.din_gate.data) store_element<kDtype>(p.din_gate, row.at, channel, n, dx * u);
        if (p.du.data) store_element<kDtype>(p.du, row.at, channel, n, dx * gate);
      });
    }
    first = false;
  }
  skip_sum = block_sum<W::kThreads>(skip_sum, wide.scratch);
  if (thread_index() == 0) work.skip_sums[block] = skip_sum;
}

template <int kN>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_gradient_kernel(const Params p, const PartialSums sums, const int splits) {
  using W = Wide<kN>;
  const W wide(splits);
  const Complex* spectra = reinterpret_cast<const Complex*>(sums.spectra) +
                           static_cast<int64_t>(block_index()) * sums.partials * splits * kN;
  const float scale = 1.0f / (static_cast<float>(kN) * static_cast<float>(splits));
  filter_gradient(wide, p, sums, [&](int s) {
    for (int i = thread_index(); i < kN; i += W::kThreads) {
      Complex sum{0, 0};
      for (int k = 0; k < sums.partials; ++k) sum = sum + spectra[(static_cast<int64_t>(k) * splits + s) * kN + i];
      wide.at(i) = sum * Complex{scale, 0};
    }
  });
}

}  // namespace dnasm
