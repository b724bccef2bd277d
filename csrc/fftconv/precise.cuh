// The float32 route: the same transform in float32 arithmetic, for likelihoods and scores; any dtype at the interface.
//
// A block takes whole sequences of one channel. Spectra, divided by L for filters, are [m][row] of the rows of 16 that a
// transform leaves in registers: what a warp touches at once lies together.
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
  DNASM_DEVICE float input(const Rows& rows, const Rows& gate, int n) const {
    return n < at.length ? product(rows, gate, n) : 0.0f;
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

// act(what a spectrum holds of row r, v) for all of a row.
template <class W, class Number, class Act>
DNASM_DEVICE void each_of_row(Number* spectrum, int r, Complex (&v)[16], const Act& act) {
  DNASM_UNROLL
  for (int m = 0; m < 16; ++m) act(spectrum[m * W::kRows + r], v[m]);
}
template <bool kConjugate, class W>
DNASM_DEVICE void times_filter(const W&, const Complex* filter, int r, Complex (&v)[16]) {
  each_of_row<W>(filter, r, v, [](Complex k, Complex& z) { z = z * (kConjugate ? conjugate(k) : k); });
}
template <class W>
DNASM_DEVICE void precise_store(const W&, Complex* to, int r, Complex (&v)[16], float scale) {
  each_of_row<W>(to, r, v, [&](Complex& k, Complex z) { k = scale * z; });
}
// The convolution of load(n) with a filter; emit(n, z).
template <class W, class Load, class Emit>
DNASM_DEVICE void precise_convolve(const W& wide, const Complex* filter, const Load& load, const Emit& emit) {
  wide.begin(0, load);
  wide.rows([&](int r, Complex(&v)[16]) {
    times_filter<false>(wide, filter, r, v);
    wide.put_row(r, v);
  });
  wide.finish(0, emit);
}
// Of row r: the sum of `count` partial spectra, `stride` apart, times `scale`.
template <class W>
DNASM_DEVICE void precise_partials(const W&, const Complex* from, int count, int64_t stride, float scale, int r, Complex (&v)[16]) {
  each_of_row<W>(from, r, v, [&](const Complex& first, Complex& z) {
    z = {0, 0};
    for (int k = 0; k < count; ++k) z = z + (&first)[k * stride];
    z = scale * z;
  });
}
// Backward's products in registers: out_gate's gradient on the way back through K, where it is wanted; sums of G conj X; dx.
// x and g: load(n); kept(r, m): where a thread's rows of X wait.
template <class W, class Kept, class LoadX, class LoadG, class EmitX, class EmitG>
DNASM_DEVICE void precise_pair(const W& wide, const Complex* filter, bool x_back, const Kept& kept, Complex* sums, bool first,
                               const LoadX& x, const LoadG& g, const EmitX& emit_x, const EmitG& emit_g) {
  wide.begin(0, x);
  wide.rows([&](int r, Complex(&v)[16]) {
    DNASM_UNROLL
    for (int m = 0; m < 16; ++m) kept(r, m) = v[m];
    if (!x_back) return;
    times_filter<false>(wide, filter, r, v);
    wide.put_row(r, v);
  });
  if (x_back) wide.finish(0, emit_x);
  wide.begin(0, g);
  wide.rows([&](int r, Complex(&v)[16]) {
    DNASM_UNROLL
    for (int m = 0; m < 16; ++m) {
      const int i = m * W::kRows + r;
      const Complex term = v[m] * conjugate(kept(r, m));
      sums[i] = first ? term : sums[i] + term;
    }
    times_filter<true>(wide, filter, r, v);
    wide.put_row(r, v);
  });
  wide.finish(0, emit_g);
}

// What a launch adds to its Params, and backward's scratch: [block] spectra of kN, [channel][chunk] sums of as many, then
// dskip's sums.
struct PreciseWork {
  int chunks;
  Complex *saved, *sums;
  float* skip_sums;
};

template <int kN>
constexpr int kPreciseBlocks = Wide<kN>::blocks_per_sm(kN > 4096 ? 128 : 80);

template <int kN>
DNASM_KERNEL(Wide<kN>::kThreads, Wide<kN>::blocks_per_sm(64)) precise_spectrum_kernel(const Params p) {
  const Wide<kN> wide;
  const FilterTaps taps(p, block_index(), kN);
  Complex* to = static_cast<Complex*>(p.spectrum) + static_cast<int64_t>(block_index()) * kN;
  float bound = 0;
  with_taps(p, taps, bound, [&](const auto& load) { wide.begin(0, load); });
  wide.rows([&](int r, Complex(&v)[16]) { precise_store(wide, to, r, v, 1.0f / kN); });
}

template <int kN, int kDtype>
DNASM_KERNEL(Wide<kN>::kThreads, kPreciseBlocks<kN>) precise_forward_kernel(const Params p, const PreciseWork work) {
  const Wide<kN> wide;
  const int64_t channel = block_index() / work.chunks;
  const Complex* filter = static_cast<const Complex*>(p.spectrum) + channel * kN;
  for (int64_t b = block_index() % work.chunks; b < p.batch; b += work.chunks) {
    const PreciseRow<kDtype> row{p, channel, segment_of(p, b)};
    const float skip = row.skip();
    precise_convolve(wide, filter, [&](int n) { return row.input(p.u, p.in_gate, n); },
                     [&](int n, Complex z) { row.output(p.y, p.out_gate, skip, n, z.re); });
  }
}

template <int kN, int kDtype>
DNASM_KERNEL(Wide<kN>::kThreads, kPreciseBlocks<kN>) precise_backward_kernel(const Params p, const PreciseWork work) {
  using W = Wide<kN>;
  const W wide;
  const int64_t block = block_index(), channel = block / work.chunks;
  const Complex* filter = static_cast<const Complex*>(p.spectrum) + channel * kN;
  Complex* saved = work.saved + block * kN;
  float skip_sum = 0;
  bool first = true;
  for (int64_t b = block % work.chunks; b < p.batch; b += work.chunks) {
    const PreciseRow<kDtype> row{p, channel, segment_of(p, b)};
    const float skip = row.skip();
    precise_pair(wide, filter, p.dout_gate.data, [&](int r, int m) -> Complex& { return saved[m * W::kRows + r]; },
                 work.sums + block * kN, first,
                 [&](int n) { return row.input(p.u, p.in_gate, n); }, [&](int n) { return row.input(p.dy, p.out_gate, n); },
                 [&](int n, Complex z) { row.output(p.dout_gate, p.dy, skip, n, z.re); },
                 [&](int n, Complex z) { skip_sum += row.input_gradient(skip, n, z.re); });
    first = false;
  }
  skip_sum = block_sum<W::kThreads>(skip_sum, wide.scratch);
  if (thread_index() == 0) work.skip_sums[block] = skip_sum;
}

template <int kN>
DNASM_KERNEL(Wide<kN>::kThreads, Wide<kN>::blocks_per_sm(64)) precise_gradient_kernel(const Params p, const PartialSums sums) {
  const Wide<kN> wide;
  const Complex* spectra =
      reinterpret_cast<const Complex*>(sums.spectra) + static_cast<int64_t>(block_index()) * sums.partials * kN;
  filter_gradient(wide, p, sums, [&](int, int r, Complex(&v)[16]) {
    precise_partials(wide, spectra, sums.partials, kN, 1.0f / kN, r, v);
  });
}

}  // namespace dnasm
