// The float32 route: the same transform in float32 arithmetic, for likelihoods and scores; any dtype at the interface.
//
// A block takes whole sequences of one channel. The spectrum is [channel][bin as it stands], divided by L.
#pragma once

#include "wide.cuh"

namespace dnasm {

// One channel of one sequence: its elements, and what becomes of finished sums.
template <int kDtype>
struct PreciseRow {
  using E = Element<kDtype>;
  const Params& p;
  int64_t channel;
  Segment at;

  DNASM_DEVICE int64_t place(const Rows& rows, int n) const {
    return at.row * rows.stride_b + channel * rows.stride_d + at.start + n;
  }
  DNASM_DEVICE float number(const Rows& rows, int n) const { return load_number(rows.data, kDtype, place(rows, n)); }
  DNASM_DEVICE void put(const Rows& rows, int n, float x) const {
    static_cast<typename E::Scalar*>(rows.data)[place(rows, n)] = E::pick(E::pack(x, x), 0);
  }
  DNASM_DEVICE float product(const Rows& rows, const Rows& gate, int n) const {
    return gate.data ? number(rows, n) * number(gate, n) : number(rows, n);
  }
  // The same as a transform reads it, zero behind the sequence.
  DNASM_DEVICE Complex input(const Rows& rows, const Rows& gate, int n) const {
    return {n < at.length ? product(rows, gate, n) : 0.0f, 0};
  }
  DNASM_DEVICE float skip() const { return p.skip ? p.skip[channel] : 0.0f; }
  // out = other (conv(x) + skip x): y with other = out_gate, the output gate's gradient with other = dy.
  DNASM_DEVICE void output(const Rows& out, const Rows& other, float skip, int n, float sum) const {
    if (n >= at.length) return;
    const float y = skip == 0 ? sum : sum + skip * product(p.u, p.in_gate, n);
    put(out, n, other.data ? y * number(other, n) : y);
  }
  // From dx = corr(g) + skip g: du and the input gate's gradient. Returns g x, which the gradient of the skip sums.
  DNASM_DEVICE float input_gradient(float skip, int n, float sum) const {
    if (n >= at.length) return 0;
    const float g = product(p.dy, p.out_gate, n), u = number(p.u, n), dx = sum + skip * g;
    const float gate = p.in_gate.data ? number(p.in_gate, n) : 1.0f;
    if (p.din_gate.data) put(p.din_gate, n, dx * u);
    if (p.du.data) put(p.du, n, dx * gate);
    return g * u * gate;
  }
};

// Points times the filter's, or its conjugates, and the way back to emit(n, z).
template <bool kConjugate, class W, class Emit>
DNASM_DEVICE void precise_back(const W& wide, const Complex* filter, const Emit& emit) {
  for (int i = thread_index(); i < W::kN; i += W::kThreads)
    wide.at(i) = wide.at(i) * (kConjugate ? conjugate(filter[i]) : filter[i]);
  sync_block();
  wide.inverse(0, emit);
}

// The sum of `count` partial spectra, `stride` apart, times `scale`, to the points.
template <class W>
DNASM_DEVICE void precise_partials(const W& wide, const Complex* from, int count, int64_t stride, float scale) {
  for (int i = thread_index(); i < W::kN; i += W::kThreads) {
    Complex sum{0, 0};
    for (int k = 0; k < count; ++k) sum = sum + from[k * stride + i];
    wide.at(i) = sum * Complex{scale, 0};
  }
  sync_block();
}

template <class W>
DNASM_DEVICE void precise_store(const W& wide, Complex* to, float scale) {
  for (int i = thread_index(); i < W::kN; i += W::kThreads) to[i] = wide.at(i) * Complex{scale, 0};
}

// What a launch adds to its Params, and backward's scratch: [block] spectra of kN, [channel][chunk] sums of as many, then
// dskip's sums.
struct PreciseWork {
  int chunks;
  Complex *saved, *sums;
  float* skip_sums;
};

template <int kN>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_spectrum_kernel(const Params p) {
  const Wide<kN> wide(1);
  const FilterTaps taps(p, block_index(), kN);
  wide.forward(0, [&](int n) { return load_tap(p, taps, n, 1.0f); });
  precise_store(wide, static_cast<Complex*>(p.spectrum) + static_cast<int64_t>(block_index()) * kN, 1.0f / kN);
}

template <int kN, int kDtype>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_forward_kernel(const Params p, const PreciseWork work) {
  const Wide<kN> wide(1);
  const int64_t channel = block_index() / work.chunks;
  const Complex* filter = static_cast<const Complex*>(p.spectrum) + channel * kN;
  for (int64_t b = block_index() % work.chunks; b < p.batch; b += work.chunks) {
    const PreciseRow<kDtype> row{p, channel, segment_of(p, b)};
    const float skip = row.skip();
    wide.forward(0, [&](int n) { return row.input(p.u, p.in_gate, n); });
    precise_back<false>(wide, filter, [&](int n, Complex z) { row.output(p.y, p.out_gate, skip, n, z.re); });
  }
}

template <int kN, int kDtype>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_backward_kernel(const Params p, const PreciseWork work) {
  using W = Wide<kN>;
  const W wide(1);
  const int64_t block = block_index(), channel = block / work.chunks;
  const Complex* filter = static_cast<const Complex*>(p.spectrum) + channel * kN;
  Complex *saved = work.saved + block * kN, *sums = work.sums + block * kN;
  float skip_sum = 0;
  bool first = true;
  for (int64_t b = block % work.chunks; b < p.batch; b += work.chunks) {
    const PreciseRow<kDtype> row{p, channel, segment_of(p, b)};
    const float skip = row.skip();
    wide.forward(0, [&](int n) { return row.input(p.u, p.in_gate, n); });
    precise_store(wide, saved, 1);
    sync_block();
    if (p.dout_gate.data)
      precise_back<false>(wide, filter, [&](int n, Complex z) { row.output(p.dout_gate, p.dy, skip, n, z.re); });
    wide.forward(0, [&](int n) { return row.input(p.dy, p.out_gate, n); });
    for (int i = thread_index(); i < kN; i += W::kThreads) {
      const Complex term = wide.at(i) * conjugate(saved[i]);
      sums[i] = first ? term : sums[i] + term;
    }
    precise_back<true>(wide, filter, [&](int n, Complex z) { skip_sum += row.input_gradient(skip, n, z.re); });
    first = false;
  }
  skip_sum = block_sum<W::kThreads>(skip_sum, wide.scratch);
  if (thread_index() == 0) work.skip_sums[block] = skip_sum;
}

template <int kN>
DNASM_KERNEL(Wide<kN>::kThreads, 1) precise_gradient_kernel(const Params p, const PartialSums sums) {
  const Wide<kN> wide(1);
  const Complex* spectra =
      reinterpret_cast<const Complex*>(sums.spectra) + static_cast<int64_t>(block_index()) * sums.partials * kN;
  filter_gradient(wide, p, sums, [&](int) { precise_partials(wide, spectra, sums.partials, kN, 1.0f / kN); });
}

}  // namespace dnasm
